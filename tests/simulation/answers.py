"""What a create may be answered with: the host's own words, words nobody documented, and gateways' words."""

from __future__ import annotations

import json
from collections.abc import Iterator

from attrs import field, frozen

HTML = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>"


@frozen
class Answer:
    """One answer to a create: what it says, and whether a task was made.

    `legacy` and `unified` are the bodies of the two protocols, with ID where the id of the task stands; `names` tells
    whether a reader would find the id in it.
    """

    word: str
    status: int
    legacy: str
    unified: str = field(kw_only=True)
    made: bool = field(kw_only=True)
    names: bool = field(default=False, kw_only=True)

    def body(self, task_id: str, *, unified: bool, legnext: bool = False, price: float = 0.0) -> str:
        """Return the body for a task, with its price if the host tells."""
        if self.word == "accepts" and price:
            usage = json.dumps({"usage": {"type": "point", "frozen": price, "consume": 0}})
            plain = self.body(task_id, unified=unified, legnext=legnext)
            return plain.replace('"status"', f'"meta": {usage}, "status"', 1)
        if legnext:
            return self._of_legnext.replace("ID", task_id)
        if unified:
            return self.unified.replace("ID", task_id)
        return self.legacy.replace("ID", task_id)

    @property
    def _of_legnext(self) -> str:
        """The body at LegNext, which calls a task a job and wraps none."""
        if self.word == "accepts":
            return json.dumps(
                {"job_id": "ID", "model": "midjourney", "status": "pending", "task_type": "diffusion"}
            )
        return self.unified.replace('"task_id"', '"job_id"')


def _accepts() -> Answer:
    legacy = json.dumps({"task_id": "ID", "status": "success", "message": ""})
    task = {"task_id": "ID", "status": "pending", "model": "m", "task_type": "t"}
    unified = json.dumps({"code": 200, "data": task, "message": "success"})
    return Answer("accepts", 200, legacy, unified=unified, made=True, names=True)


def _refuses(word: str, status: int, text: str) -> Answer:
    """Return a refusal in the host's own words: no task is made."""
    legacy = json.dumps({"task_id": "", "status": "failed", "message": text})
    unified = json.dumps({"code": status, "data": {"task_id": "", "status": "failed"}, "message": text})
    return Answer(word, status, legacy, unified=unified, made=False)


def _makes(word: str, status: int, body: str, *, names: bool = False) -> Answer:
    """Return an odd answer to a create that did make a task."""
    return Answer(word, status, body, unified=body, made=True, names=names)


def _gateways() -> Iterator[Answer]:
    """Return what stands before the host may say, whether or not the host behind it has made a task."""
    for word, status, body in (
        ("Kong", 502, '{"message":"An invalid response was received from the upstream server"}'),
        ("AWS", 500, '{"message":"Internal server error"}'),
        ("AWS, late", 504, '{"message":"Endpoint request timed out"}'),
        ("Spring", 500, '{"status":500,"error":"Internal Server Error","message":"boom"}'),
        ("Go", 500, '{"code":500,"message":"unexpected EOF"}'),
        ("an HTML 502", 502, "<html><body>502 Bad Gateway</body></html>"),
        ("an HTML 403", 403, HTML),
        ("an HTML 408", 408, "<html>Request Time-out</html>"),
        ("an HTML 520", 520, "<html>Web server returned an unknown error</html>"),
    ):
        yield Answer(f"answers through {word}, having made a task", status, body, unified=body, made=True)
        yield Answer(f"is behind {word} and has made no task", status, body, unified=body, made=False)


ANSWERS = (
    _accepts(),
    _refuses("refuses the prompt", 400, "banned prompt words: cat"),
    _refuses("refuses, quoting 'overloaded'", 400, "banned prompt words: overloaded"),
    _refuses("is busy", 429, "too many requests"),
    _refuses("has no bot", 400, "no available bot"),
    _refuses("has no credit", 500, "failed to freeze credit"),
    _makes("says success and nothing else", 200, '{"status":"success","message":"success"}'),
    _makes("names it as taskId", 200, '{"status":"success","message":"ok","taskId":"ID"}', names=True),
    _makes("says it was created", 201, '{"message":"Task created"}'),
    _makes("names it bare", 200, '{"task_id":"ID","status":"success","message":"success"}', names=True),
    _makes("names it in a list", 200, '{"message":"success","data":[{"task_id":"ID"}]}'),
    _makes("is busy and names a task", 429, '{"code":429,"data":{"task_id":"ID"}}', names=True),
    _makes(
        "is overloaded and names a task", 400, '{"data":{"task_id":"ID"},"message":"overloaded"}', names=True
    ),
    _makes("answers nothing", 200, ""),
    _makes("answers what nobody understands", 200, '{"received":true}'),
    _makes("redirects elsewhere", 303, ""),
    *_gateways(),
)
BY_WORD = {answer.word: answer for answer in ANSWERS}
