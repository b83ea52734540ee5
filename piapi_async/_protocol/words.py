"""What the JSON of an answer says: a yes, a no, an id, and whose words they are.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any

from attrs import frozen

from .._http import Request
from ..tasks import TaskId, check_task_id
from .reading import read_int

# -- what an answer says ------------------------------------------------------------------------------------------

_ID_FIELDS = ("task_id", "taskId", "job_id")
_WRAPPERS = ("data", "task", "job", "result")


def named_task(answer: Mapping[str, Any]) -> TaskId | None:
    """Return the task that an answer names, at its top or in its `data`; None if it names none."""
    task_id = answer.get("task_id")
    if type(task_id) is str and task_id:  # the legacy protocol's
        return _as_id(task_id)
    data = answer.get("data")
    if type(data) is dict and type(task_id := data.get("task_id")) is str and task_id:  # the envelope's
        return _as_id(task_id)
    return next(filter(None, map(_as_id, _ids_in(answer, depth=2))), None)


def _ids_in(place: Mapping[str, Any], depth: int) -> Iterator[object]:
    for name in _ID_FIELDS:
        yield place.get(name)
    for name in _WRAPPERS if depth else ():
        inner = place.get(name)
        if isinstance(inner, dict):
            yield from _ids_in(inner, depth - 1)


def _as_id(value: object) -> TaskId | None:
    """Return what stands where an id should as an id, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    try:
        return check_task_id(str(value))
    except ValueError:
        return None


# Where a bare `id` is that of a task, at the top or in a list of tasks.
_HOLDERS = (*_WRAPPERS, "results", "tasks", "jobs", "response", "payload", "output", "generation")

# A task's id under any spelling of its name, however deep it stands, in whatever is not JSON too: `"taskID": "T1"`,
# `\"task_id\": \"T1\"` in a string, `task-id=T1`, `<task_id>T1</task_id>`, `/task/` and a UUID.  Only behind a
# name in quotation marks may it be without a digit: elsewhere a word is prose ("task_id: required").
_MENTIONED = re.compile(
    rb"""(?<![\w-])(?:
        (?:task|job)[_-]?ids?(?:
            \\?["']\s{0,9}:\s{0,9}\\?["'](?!(?:null|none|undefined|false|true)\b)([\w.:-]{1,100})\\?["']
            | [\\"'>\s]{0,9}[:=>][\\"'\s\[{]{0,9}(?=[\w.:-]{0,99}\d)([\w.:-]{1,100})
        )
        | (?:tasks?|jobs?)/([0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_TOP = 3  # objects deep that are looked into
_ID_LIKE = re.compile(r"(?=.*\d)[\w-]{8,}")


def mentioned_task(body: bytes, answer: Mapping[str, Any], request: Request[Any]) -> str:
    """Return what may be a new task's id, in a form or a place that is no host's as far as we know; "" for none.

    Nothing that the request itself names is new: a refusal of a reroll may well name its parent.
    """
    text = body.replace(b"\0", b"")  # as in UTF-16
    found = dict.fromkeys(chain(map(_decoded, _MENTIONED.finditer(text)), _bare_ids(answer, _TOP)))
    sent = sent_words(request) if found else ""
    return next((name for name in found if not _is_sent(name, sent)), "")


def _decoded(match: re.Match[bytes]) -> str:
    return (match[1] or match[2] or match[3]).decode("utf-8", "replace")


def _bare_ids(place: object, depth: int) -> Iterator[str]:
    """Yield what may be tasks' ids and may be something else: a bare `id`, or what stands where a task should."""
    if isinstance(place, list):
        for item in place:
            yield from _bare_ids(item, depth)
    elif isinstance(place, str):
        if _ID_LIKE.fullmatch(place):
            yield place
    elif isinstance(place, dict):
        for name in ("id", *_ID_FIELDS):
            if (found := _as_id(place.get(name))) is not None:
                yield found
        for name in (*_HOLDERS, *_ID_FIELDS) if depth else ():
            yield from _bare_ids(place.get(name), depth - 1)


def is_own(task_id: str, request: Request[Any]) -> bool:
    """Tell whether a request itself names a task, its parent say: that is not the one it makes."""
    return _is_sent(task_id, sent_words(request))


def _is_sent(name: str, sent: str) -> bool:
    return f'"{name.lower()}"' in sent


def says_failed(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer's own status word (or a 2023 host's `success` flag) says that it was refused."""
    status = answer.get("status")
    return (isinstance(status, str) and status.strip().lower() in {"failed", "error"}) or answer.get("success") is False


def read_code(answer: Mapping[str, Any]) -> int | None:
    """Return the `code` of an envelope, None where there is no number."""
    code = answer.get("code")
    if type(code) is int:
        return code
    if isinstance(code, (dict, list, bool)):
        return None
    return read_int(code)


def says_no(answer: Mapping[str, Any]) -> bool:
    """Tell whether a 2xx says that the request has failed, by its status word, flag or code."""
    if says_failed(answer) or _is_word(answer.get("data"), "failed"):
        return True
    code = answer.get("code")
    if code is None or code == HTTPStatus.OK:  # nearly always
        return False
    code = read_code(answer)
    return code is not None and code >= HTTPStatus.BAD_REQUEST


def _is_word(place: object, word: str) -> bool:
    """Tell whether an object's status is a word."""
    status = place.get("status") if isinstance(place, dict) else None
    return isinstance(status, str) and status.strip().lower() == word


_YES = frozenset(
    {
        *("success", "succeeded", "ok", "accepted", "created", "queued", "submitted", "staged", "pending"),
        *("starting", "processing", "running", "finished", "completed"),
    }
)


def claims_success(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer that has the status of a no says yes: by its status, its flag or its whole message.

    A `code` does not: 0 is what a host leaves there that has none.
    """
    data = answer.get("data")
    if says_failed(answer) or _is_word(data, "failed"):
        return False
    inner = data.get("status") if isinstance(data, dict) else None
    words = (answer.get("status"), answer.get("message"), inner)
    said = any(isinstance(word, str) and word.strip(" .!").lower() in _YES for word in words)
    return said or answer.get("success") is True


def _says_yes(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer says by its status, flag, code or whole message that the request has succeeded."""
    for word in (answer.get("status"), answer.get("message")):
        if isinstance(word, str) and word.strip().lower() in _YES:
            return True
    code = read_code(answer)
    return answer.get("success") is True or (code is not None and (code == 0 or is_good(code)))


def _texts(answer: Mapping[str, Any]) -> Iterator[str]:
    """Return the texts of an answer that say why, the most telling first."""
    data, error = answer.get("data"), answer.get("error")
    inner = data.get("error") if isinstance(data, dict) else None
    for place in (inner, error):
        if isinstance(place, dict):
            yield from (text_of(place.get(name)) for name in ("raw_message", "message", "detail"))
    yield text_of(answer.get("message"))
    yield from (text_of(place) for place in (inner, error))
    yield from (text_of(answer.get(name)) for name in ("description", "detail"))


# Characters of a host's text that are read, and kept in an error: a text is for people, and costs time and memory.
_LONGEST_TEXT = 1000


def text_of(value: object) -> str:
    return value[:_LONGEST_TEXT].strip() if isinstance(value, str) else ""


_OWN_FIELDS = ("status", "code", "data", "error", "description", "message")
_QUOTED = re.compile(r"""(?<!\w)(["'`])(?:(?!\1).)+\1(?!\w)|“[^”]*”|«[^»]*»|\u2018[^\u2019]*\u2019""", re.DOTALL)


@frozen
class Words:
    """What a JSON object says, as far as a judgement needs it.

    `text` is the host's most telling text, "" where it is not the host that speaks; `texts` are all texts without what
    they quote; `own` tells whether the host itself speaks, `spoiled` whether a gateway or a crash does; `failed` and
    `yes` whether the object says so.
    """

    data: Mapping[str, Any]
    text: str
    texts: str
    code: int | None
    own: bool
    spoiled: bool
    failed: bool
    yes: bool
    bare_id: str
    _request: Request[Any]

    @classmethod
    def of(cls, data: Mapping[str, Any], request: Request[Any], body: bytes = b"") -> Words:
        found = list(dict.fromkeys(filter(None, _texts(data))))
        unquoted = [_QUOTED.sub("…", text) for text in found]
        spoiled = any(_is_stock(text, request) for text in unquoted)
        speaks = data.get("success") is False or any(data.get(name) not in _EMPTY for name in _OWN_FIELDS)
        failed = _is_word(data, "failed") or _is_word(data.get("data"), "failed")
        code = read_code(data)
        return cls(
            data=data,
            text=_told(found, code, failed=failed or says_failed(data)) if speaks and not spoiled else "",
            texts="; ".join(unquoted),
            code=code,
            own=speaks and not spoiled,
            spoiled=spoiled,
            failed=failed,
            yes=_says_yes(data),
            bare_id=mentioned_task(body, data, request),
            request=request,
        )

    def match(self, pattern: re.Pattern[str]) -> bool:
        """Tell whether the host itself says something, and does not merely quote the request."""
        return _is_evidence(pattern, self.texts, self._request)

    def banned(self, status: int) -> bool:
        """Tell whether the prompt was refused for its words."""
        return status in VALUES and BANNED.search(self.texts) is not None


_EMPTY: tuple[object, ...] = (None, "", [], {})


def _told(texts: list[str], code: int | None, *, failed: bool) -> str:
    """Return the most telling of a host's texts, or what it says without any."""
    if texts:
        return texts[0]
    if failed:
        return "failed"
    return f"code {code}" if code else ""


def _is_evidence(pattern: re.Pattern[str], text: str, request: Request[Any]) -> bool:
    """Tell whether a text says one of some phrases by itself: one that the request holds too may be a quotation."""
    found = {match.group().lower() for match in pattern.finditer(text)}
    if not found:
        return False
    sent = sent_words(request)
    return any(phrase not in sent for phrase in found)


def sent_words(request: Request[Any]) -> str:
    """Return what was sent, in small letters; "" for a request class that cannot say."""
    try:
        return request.to_http().body.decode("utf-8", "replace").lower()
    except Exception:  # noqa: BLE001 - a request class of the user's may raise anything, and its answer is still judged
        return ""


# What gateways, balancers and crashes say by themselves: observed of AWS, Kong, Envoy, nginx, Cloudflare, Spring, Go.
_STOCK_WORDS = re.compile(
    r"internal[ _]?(?:server[ _]?)?error|bad gateway|missing authentication token|no healthy|\bupstream\b"
    r"|service[ _]?(?:is )?(?:temporarily |currently )?unavailable|temporarily unavailable"
    r"|tim(?:e|ed|ing)[\s_-]?out|deadline exceeded|\beof\b|broken pipe|reset by peer"
    r"|connection (?:was )?(?:reset|refused|closed|lost|aborted)"
    r"|(?:remote end|server) closed|closed (?:network|idle) conn"
    r"|socket hang ?up|\beconn[a-z]+|\bepipe\b|\benotfound\b|no route to host|\bdial tcp\b"
    r"|rpc error: code = (?:unavailable|cancell?ed|unknown|internal|aborted|deadline|dataloss)|error while dialing"
    r"|max retries exceeded|no response from|lost connection|(?:context|request|operation|stream) (?:was )?cancell?ed"
    r"|an? (?:unknown|unexpected|unhandled) (?:error|exception)|(?:request|operation) (?:was )?aborted"
    r"|an error (?:has )?occurred while processing|something went wrong|stack trace|panic:"
    r"|nil pointer|null ?pointer|object has no attribute|\bkeyerror\b|(?:list|runtime error:) index out of range"
    r"|unexpected token"
    r"|properties of (?:undefined|null)|looking for beginning of value|unexpected end of json"
    r"|expecting value: line|status[ _]code[ =:]*50[0-9]"
    r"|deadlock|database is locked|something broke|oomkilled",
    re.IGNORECASE,
)
_STOCK_PHRASES = frozenset(
    {
        *(status.phrase.lower() for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
        *("forbidden", "access denied", "server error", "unknown error", "unexpected error", "an error occurred"),
        *("unknown", "network error", "fetch failed", "服务器内部错误", "系统繁忙", "系统异常"),
        *("canceled", "cancelled", "reset", "eof", "unavailable", "error", "an error has occurred", "gateway error"),
    }
)


def _is_stock(text: str, request: Request[Any]) -> bool:
    """Tell whether a text is a gateway's or a crash's, which says nothing of what the host behind it has done."""
    return text.strip(" .!").lower() in _STOCK_PHRASES or _is_evidence(_STOCK_WORDS, text, request)


BANNED = re.compile(r"banned|sensitive word", re.IGNORECASE)


# -- statuses -----------------------------------------------------------------------------------------------------

VALUES = frozenset({200, 400, 422})


def is_good(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 - HTTP's own classes
