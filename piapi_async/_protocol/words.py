"""What the JSON of a response says: a yes, a no, an id, and who says it.  Pure.

A host answers in its own words; a gateway or a crash in front of it answers in stock phrases.  Only
the host's words are evidence of what it has done, and only those that it does not quote from the
request.  `_verdict` decides what follows from them.

Patterns are texts, which `re` compiles when one is first searched for: most programs meet no refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any

from attrs import frozen

from .._http import Request
from ..tasks import TaskId, check_task_id
from .reading import goes_well, object_at, read_int, tells_of_a_task

# -- the task that it names ---------------------------------------------------------------------------

_ID_FIELDS = ("task_id", "taskId", "job_id")
_WRAPPERS = ("data", "task", "job", "result")


def named_task(answer: Mapping[str, Any]) -> TaskId | None:
    """Return the task that a response names, None if it names none."""
    task_id = answer.get("task_id")
    if type(task_id) is str and task_id:  # the legacy protocol's
        return _as_id(task_id)

    data = answer.get("data")
    if type(data) is dict:
        task_id = data.get("task_id")
        if type(task_id) is str and task_id:  # the envelope's
            return _as_id(task_id)

    return next(filter(None, map(_as_id, _ids_in(answer, depth=2))), None)


def _ids_in(place: Mapping[str, Any], depth: int) -> Iterator[object]:
    for name in _ID_FIELDS:
        yield place.get(name)
    if not depth:
        return

    for name in _WRAPPERS:
        inner = place.get(name)
        if isinstance(inner, dict):
            yield from _ids_in(inner, depth - 1)


def _as_id(value: object) -> TaskId | None:
    """Return a value as an id, None if it cannot be one."""
    if type(value) is int:  # and no `bool`
        value = str(value)
    if type(value) is not str:
        return None
    try:
        return check_task_id(value)
    except ValueError:
        return None


# Where a bare `id` is that of a task, at the top or in a list of tasks.
_HOLDERS = (*_WRAPPERS, "results", "tasks", "jobs", "response", "payload", "output", "generation")

# A task's id under any spelling of its name, however deep it stands, in other formats than JSON, too:
# `"taskID": "T1"`, `\"task_id\": \"T1\"` in a string, `task-id=T1`, `<task_id>T1</task_id>`, `/task/`
# and a UUID.  Only behind a name in quotation marks may it be without a digit: elsewhere a word is
# prose ("task_id: required").
_MENTIONED = rb"""(?ix)(?<![\w-])(?:
        (?:task|job)[_-]?ids?(?:
            \\?["']\s{0,9}:\s{0,9}\\?["'](?!(?:null|none|undefined|false|true)\b)([\w.:-]{1,100})\\?["']
            | [\\"'>\s]{0,9}[:=>][\\"'\s\[{]{0,9}(?=[\w.:-]{0,99}\d)([\w.:-]{1,100})
        )
        | (?:tasks?|jobs?)/([0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})
    )"""
_TOP = 3  # objects deep that are looked into
_ID_LIKE = r"(?=.*\d)[\w-]{8,}"


def mentioned_task(body: bytes, answer: Mapping[str, Any], request: Request[Any]) -> str:
    """Return what may be a new task's id, in a form or a place that no known host uses; else "".

    Nothing that the request itself names is new: a refusal of a reroll may name its parent.
    """
    text = body.replace(b"\0", b"")  # as in UTF-16
    mentioned = map(_decoded, re.finditer(_MENTIONED, text))
    found = dict.fromkeys(chain(mentioned, _bare_ids(answer, _TOP)))
    if not found:
        return ""

    sent = sent_words(request)
    return next((name for name in found if not _is_sent(name, sent)), "")


def _decoded(match: re.Match[bytes]) -> str:
    return (match[1] or match[2] or match[3]).decode("utf-8", "replace")


def _bare_ids(place: object, depth: int) -> Iterator[str]:
    """Yield what may be ids of tasks or something else: a bare `id`, or a word in a task's place."""
    ahead: list[tuple[object, int]] = [(place, depth)]
    while ahead:  # an explicit stack, because JSON may be nested deeper than Python can recurse
        place, depth = ahead.pop()
        if isinstance(place, list):
            ahead += reversed([(item, depth) for item in place])
        elif isinstance(place, str):
            if re.fullmatch(_ID_LIKE, place):
                yield place
        elif isinstance(place, dict):
            yield from filter(None, (_as_id(place.get(name)) for name in ("id", *_ID_FIELDS)))
            if depth:
                inner = (place.get(name) for name in (*_HOLDERS, *_ID_FIELDS))
                ahead += reversed([(value, depth - 1) for value in inner])


def is_own(task_id: str, request: Request[Any], sent: bytes | None = None) -> bool:
    """Return whether a request itself names a task, such as its parent: it is not the new one.

    `sent` is its body; without it, it is made again.
    """
    if sent is not None and task_id.isascii():  # nearly always; a mask in it may have megabytes
        return f'"{task_id.lower()}"'.encode() in sent.lower()
    return _is_sent(task_id, sent_words(request, sent))


def _is_sent(name: str, sent: str) -> bool:
    return f'"{name.lower()}"' in sent


# -- yes and no ------------------------------------------------------------------------------------


def says_failed(answer: Mapping[str, Any]) -> bool:
    """Return whether the status word, or the `success` flag of a 2023 host, says "refused"."""
    status = answer.get("status")
    if isinstance(status, str) and status.strip().lower() in {"failed", "error"}:
        return True
    return answer.get("success") is False


def read_code(answer: Mapping[str, Any]) -> int | None:
    """Return the `code` of an envelope, or of the error in its place; None if it is not a number."""
    code = _number(answer.get("code"))
    if code is not None:
        return code

    # A whole task has an `error`, too, whose code is 0 unless it has failed.
    code = _number(object_at(answer, "error").get("code"))
    if code is not None and code >= HTTPStatus.BAD_REQUEST:
        return code
    return None


def _number(value: object) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, (dict, list, bool)):
        return None
    return read_int(value)


def says_no(answer: Mapping[str, Any]) -> bool:
    """Return whether a 2xx says that the request has failed, by its status word, flag or code."""
    if says_failed(answer) or ("data" in answer and _has_status(answer["data"], "failed")):
        return True
    code = answer.get("code")
    if (code is None and "error" not in answer) or code == HTTPStatus.OK:  # nearly always
        return False
    code = read_code(answer)
    return code is not None and code >= HTTPStatus.BAD_REQUEST


def _has_status(place: object, word: str) -> bool:
    """Return whether a value is an object with this status word."""
    if not isinstance(place, dict):
        return False
    status = place.get("status")
    return isinstance(status, str) and status.strip().lower() == word


_YES = frozenset({"ok", "accepted", "created"})  # beside the status words of a task that goes well


def claims_success(answer: Mapping[str, Any]) -> bool:
    """Return whether a response with the HTTP status of a no says yes: by status, flag or message.

    The status of a task counts as a yes, even of one that was cancelled.  A `code` does not count:
    hosts that have none leave it at 0.
    """
    data = object_at(answer, "data")
    if says_failed(answer) or _has_status(data, "failed"):
        return False
    if answer.get("success") is True:
        return True

    return _is_yes(answer.get("message")) or _says_made(answer.get("status"), data.get("status"))


def _says_yes(answer: Mapping[str, Any]) -> bool:
    """Return whether the status, the whole message, the flag or the code says "succeeded"."""
    if answer.get("success") is True or _is_yes(answer.get("message")):
        return True
    if _says_made(answer.get("status")):
        return True

    code = read_code(answer)
    if code is None:
        return False
    return code == 0 or is_good(code)


def _is_yes(message: object) -> bool:
    """Return whether a whole message is a word that says "succeeded", or that a task is on its way."""
    if not isinstance(message, str):
        return False
    word = message.strip(" .!")
    return word.lower() in _YES or goes_well(word)


def _says_made(*values: object) -> bool:
    """Return whether any value is a status that says yes, or that of a task, whatever has become of that."""
    return any(
        _is_yes(value) or tells_of_a_task(value.strip(" .!")) for value in values if isinstance(value, str)
    )


# -- texts -----------------------------------------------------------------------------------------


def _texts(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that say why, the most telling first."""
    error = answer.get("error")
    inner = object_at(answer, "data").get("error")
    for place in (inner, error):
        if isinstance(place, dict):
            for name in ("raw_message", "message", "detail"):
                yield text_of(place.get(name))

    yield text_of(answer.get("raw_message"))
    yield text_of(answer.get("message"))
    yield text_of(inner)
    yield text_of(error)
    yield text_of(answer.get("description"))
    yield text_of(answer.get("detail"))


# Characters of a host's text that are read and kept in an error: a text is for people, and searching
# megabytes would hold the event loop.
_LONGEST_TEXT = 1000


def text_of(value: object) -> str:
    """Return the beginning of a `str`, "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:_LONGEST_TEXT].strip()


_OWN_FIELDS = ("status", "code", "data", "error", "description", "message")
_QUOTED = (
    r"""(?s)(?<!\w)(["'`])(?:(?!\1).)+\1(?!\w)"""
    r"|“[^”]*”|«[^»]*»|\u2018[^\u2019]*\u2019"
)


@frozen(eq=False, repr=False)
class Words:
    """What a JSON object says, as far as a judgement needs it.

    `text` is the host's most telling text, "" if it is not the host that speaks; `texts` are all
    texts, joined, without what they quote; `own` says that the host itself speaks, `spoiled` that a
    gateway or a crash does; `failed` and `yes` that the object says so; `bare_id` is what may be
    the id of a task.
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
        """Return the words of a JSON object, read from `body`, that came in response to a request."""
        found = list(dict.fromkeys(filter(None, _texts(data))))
        unquoted = [re.sub(_QUOTED, "…", text) for text in found]
        spoiled = any(_is_stock(text, request) for text in unquoted)
        own = not spoiled and _has_own_fields(data)
        failed = _has_status(data, "failed") or _has_status(data.get("data"), "failed")
        code = read_code(data)

        text = ""
        if own:
            text = _most_telling(found, code, failed=failed or says_failed(data))

        return cls(
            data=data,
            text=text,
            texts="; ".join(unquoted),
            code=code,
            own=own,
            spoiled=spoiled,
            failed=failed,
            yes=_says_yes(data),
            bare_id=mentioned_task(body, data, request),
            request=request,
        )

    def match(self, pattern: str) -> bool:
        """Return whether the host itself uses a phrase, and does not merely quote the request."""
        return _is_evidence(pattern, self.texts, self._request)

    def banned(self, status: int) -> bool:
        """Return whether the prompt was refused for its words."""
        if status == HTTPStatus.FORBIDDEN:
            return re.search(MODERATED, self.texts) is not None
        return status in VALUES and re.search(BANNED, self.texts) is not None


_EMPTY: tuple[object, ...] = (None, "", [], {})


def _has_own_fields(data: Mapping[str, Any]) -> bool:
    """Return whether an object has what only a host's JSON has."""
    if data.get("success") is False:
        return True
    return any(data.get(name) not in _EMPTY for name in _OWN_FIELDS)


def _most_telling(texts: list[str], code: int | None, *, failed: bool) -> str:
    """Return the most telling of a host's texts; without any, its status or code in words."""
    if texts:
        return texts[0]
    if failed:
        return "failed"
    if code:
        return f"code {code}"
    return ""


# -- whose words they are --------------------------------------------------------------------------


def _is_evidence(pattern: str, text: str, request: Request[Any]) -> bool:
    """Return whether a text has a phrase of its own; one that the request has may be a quotation."""
    found = {match.group().lower() for match in re.finditer(pattern, text)}
    if not found:
        return False

    sent = sent_words(request)
    return any(phrase not in sent for phrase in found)


def sent_words(request: Request[Any], sent: bytes | None = None) -> str:
    """Return what was sent, in lower case; "" if its body is not given and the request class cannot say."""
    try:
        if sent is None:
            sent = request.to_http().body
        return sent.decode("utf-8", "replace").lower()
    except Exception:  # noqa: BLE001 - a user's class may raise anything; its response is judged
        return ""


# What gateways, balancers and crashes say by themselves: observed of AWS, Kong, Envoy, nginx,
# Cloudflare, Spring, Go.
_STOCK_WORDS = (
    r"(?i)internal[ _]?(?:server[ _]?)?error|bad gateway|missing authentication token|no healthy"
    r"|\bupstream\b"
    r"|service[ _]?(?:is )?(?:temporarily |currently )?unavailable|temporarily unavailable"
    r"|tim(?:e|ed|ing)[\s_-]?out|deadline exceeded|\beof\b|broken pipe|reset by peer"
    r"|connection (?:was )?(?:reset|refused|closed|lost|aborted)"
    r"|(?:remote end|server) closed|closed (?:network|idle) conn"
    r"|socket hang ?up|\beconn[a-z]+|\bepipe\b|\benotfound\b|no route to host|\bdial tcp\b"
    r"|rpc error: code = (?:unavailable|cancell?ed|unknown|internal|aborted|deadline|dataloss)"
    r"|error while dialing|max retries exceeded|no response from|lost connection"
    r"|(?:context|request|operation|stream) (?:was )?cancell?ed"
    r"|an? (?:unknown|unexpected|unhandled) (?:error|exception)|(?:request|operation) (?:was )?aborted"
    r"|an error (?:has )?occurred while processing|something went wrong|stack trace|panic:"
    r"|nil pointer|null ?pointer|object has no attribute|\bkeyerror\b"
    r"|(?:list|runtime error:) index out of range|unexpected token"
    r"|properties of (?:undefined|null)|looking for beginning of value|unexpected end of json"
    r"|expecting value: line|status[ _]code[ =:]*50[0-9]"
    r"|deadlock|database is locked|something broke|oomkilled"
)
_STOCK_PHRASES = frozenset(
    {
        *(status.phrase.lower() for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
        *("forbidden", "access denied", "server error", "gateway error", "unknown error"),
        *("unexpected error", "error", "an error occurred", "an error has occurred"),
        *("unknown", "network error", "fetch failed", "服务器内部错误", "系统繁忙", "系统异常"),
        *("canceled", "cancelled", "reset", "eof", "unavailable"),
    }
)


def _is_stock(text: str, request: Request[Any]) -> bool:
    """Return whether a text is a gateway's or a crash's, which cannot know what the host did."""
    if text.strip(" .!").lower() in _STOCK_PHRASES:
        return True
    return _is_evidence(_STOCK_WORDS, text, request)


BANNED = r"(?i)banned|sensitive (?:word|content)"
MODERATED = r"(?i)sensitive|banned (?:prompt|word)|moderat|content (?:policy|filter)|nsfw|inappropriate"
"""What a 403 says that is about the words of a request, and not about its key (LegNext's page of errors)."""


# -- statuses --------------------------------------------------------------------------------------

VALUES = frozenset({200, 400, 422})
"""Statuses with which hosts refuse the values of a request (observed)."""


def is_good(status: int) -> bool:
    """Return whether an HTTP status is a success."""
    return 200 <= status < 300  # noqa: PLR2004 - HTTP's own classes
