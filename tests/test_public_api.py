"""The public surface: names, signatures, docstrings, and what importing the package costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import pytest
from support.processes import ended
from support.tables import for_each

import piapi_async
from piapi_async import Ledger, PiAPI, PollPolicy, Request, RetryPolicy, Task, TaskHandle, TaskRef

NAMES = {
    *("PiAPI", "TaskHandle", "as_completed", "wait_all", "download", "read", "Ledger", "Stats"),
    *("Imagine", "Reroll", "Upscale", "Variation", "Inpaint", "Outpaint", "Pan", "Describe", "Blend", "Seed"),
    *("BatchItem", "BatchRunner", "Outcome", "WebhookEvent", "WebhookReceiver"),
    *(
        "LEGACY",
        "Family",
        "FileKind",
        "FileRole",
        "MidjourneyResult",
        "Task",
        "TaskFile",
        "TaskRef",
        "TaskState",
    ),
    *("UNIFIED", "CreateTask", "Account", "ActiveTasks", "Cost", "Created", "Credits", "HistoryEntry"),
    *(
        "PollPolicy",
        "RetryPolicy",
        "InsufficientCreditError",
        "KeyReused",
        "LedgerEntry",
        "LedgerState",
        "Totals",
    ),
    *("TaskRequest", "Request", "HTTPRequest", "HTTPResponse"),
    *(
        "PiAPIError",
        "TransportError",
        "APIError",
        "AuthenticationError",
        "InvalidRequestError",
        "NotFoundError",
    ),
    *(
        "ParentOutdatedError",
        "RateLimitError",
        "RecoveryReport",
        "ServerError",
        "UnexpectedAnswer",
        "SubmissionUnknown",
    ),
    *(
        "TaskFailed",
        "TaskCancelled",
        "WaitTimeout",
        "ClientClosed",
        "LedgerError",
        "WebhookRejected",
        "DownloadError",
    ),
    "__version__",
}

# Heavy, and of use to some callers only.
LOADED_LATER = {"aiohttp", "yarl", "sqlite3", "PIL", "click", "rich", "pytest", "email.mime", "http.server"}


def run(program: str) -> str:
    """Run a program in a fresh interpreter, with warnings as errors, and give what it prints."""
    root = str(Path(piapi_async.__file__).parent.parent)
    # A measured run would load what coverage needs, which is more than what we load.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name} | {
        "PYTHONPATH": root
    }
    done = ended(sys.executable, "-W", "error", "-c", program, env=environment)
    assert done.said == ""
    return done.printed.strip()


class TestNames:
    def test_are_exactly_the_documented_ones(self) -> None:
        assert set(piapi_async.__all__) == NAMES

    def test_are_listed_once_and_sorted_as_ruff_does(self) -> None:
        constants = [name for name in piapi_async.__all__ if name.isupper()]
        others = [name for name in piapi_async.__all__ if not name.isupper()]
        classes = sorted(name for name in others if name[0].isupper())

        assert piapi_async.__all__ == [*constants, *classes, *sorted(set(others) - set(classes))]

    def test_can_each_be_had_from_the_package(self) -> None:
        assert [
            name for name in sorted(NAMES) if not hasattr(importlib.import_module("piapi_async"), name)
        ] == []

    def test_can_all_be_had_by_a_star(self) -> None:
        printed = run("from piapi_async import *; print(len([n for n in dir() if not n.startswith('__')]))")

        assert int(printed) == len(NAMES - {"__version__"})

    def test_are_what_dir_shows(self) -> None:
        assert set(dir(piapi_async)) == NAMES

    @for_each("name", ["reroll", "Client", "piapi", "aiohttp_", "_nothing"])
    def test_that_do_not_exist_are_an_attribute_error(self, name: str) -> None:
        with pytest.raises(AttributeError, match=f"module 'piapi_async' has no attribute '{name}'"):
            getattr(piapi_async, name)

    def test_that_do_not_exist_cannot_be_imported(self) -> None:
        with pytest.raises(ImportError, match="cannot import name 'nothing'"):
            exec("from piapi_async import nothing")  # noqa: S102 - so that no type checker minds

    def test_live_in_this_package(self) -> None:
        outsiders = {
            name
            for name in NAMES - {"__version__", "LEGACY"}
            if not getattr(piapi_async, name).__module__.startswith("piapi_async")
        }

        assert outsiders == set()

    def test_of_the_lazy_ones_and_of_the_type_checkers_agree(self) -> None:
        tree = ast.parse(Path(piapi_async.__file__).read_text(encoding="utf-8"))
        block = next(node for node in tree.body if isinstance(node, ast.If))
        told = {
            alias.name: str(node.module)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

        assert told == piapi_async._MODULES

    def test_of_the_version_is_a_version(self) -> None:
        assert [part.isdigit() for part in piapi_async.__version__.split(".")] == [True] * 3


class TestImporting:
    def test_loads_nothing_heavy(self) -> None:
        loaded = set(run("import piapi_async, sys; print(*sys.modules)").split())

        assert loaded & LOADED_LATER == set()

    def test_a_request_and_a_ref_load_nothing_heavy_either(self) -> None:
        program = """
import sys
from piapi_async import Reroll, TaskRef
Reroll("6886fc4d", prompt="a cute cat").to_http()
TaskRef.from_json(TaskRef("https://api.piapi.ai", "legacy", "c0d39b5a").to_json())
print(*sys.modules)
"""
        assert set(run(program).split()) & LOADED_LATER == set()

    def test_is_finished_when_a_lazy_name_is_first_asked_for(self) -> None:
        names = sorted(piapi_async._MODULES)
        program = f"""
import piapi_async
for name in {names}:
    print(name in vars(piapi_async), bool(getattr(piapi_async, name)), name in vars(piapi_async))
"""
        assert run(program).splitlines() == ["False True True" for _ in names]

    def test_a_client_loads_no_protocol_but_its_own_and_nothing_that_saves_files_or_writes_ledgers(
        self,
    ) -> None:
        program = "from piapi_async import PiAPI, Reroll; PiAPI('a-key'); import sys; print(*sys.modules)"
        unused = {f"piapi_async.{name}" for name in ("unified", "legacy", "_legnext", "downloads._saver")}

        assert set(run(program).split()) & {*unused, "sqlite3", "piapi_async.ledger._writer"} == set()

    def test_a_client_needs_no_running_loop_and_no_extra(self) -> None:
        program = "from piapi_async import PiAPI; print(PiAPI('a-key')); import sys; print(*sys.modules)"
        made, loaded = run(program).splitlines()

        assert made == "<PiAPI https://api.piapi.ai: 0 waiting, 0 submitting>"
        assert "piapi_async.observe" in loaded.split()
        assert not set(loaded.split()) & {"opentelemetry", "prometheus_client", "dbos", "fsspec"}

    def test_says_that_the_package_is_typed(self) -> None:
        assert (Path(piapi_async.__file__).parent / "py.typed").is_file()


def shape(function: Callable[..., Any]) -> str:
    """Give the names, kinds and defaults of what a function takes, without the types."""
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


SIGNATURES: list[tuple[str, Callable[..., Any], str]] = [
    (
        "PiAPI",
        PiAPI,
        (
            "(api_key=None, *, base_url=None, upload_url=None, family=None, timeout=30.0, retry=None, poll=None, "
            "rate_limit=None, connections=100, multi_fetch_size=20, ledger=None, recover=60.0, session=None, "
            "trust_env=False, allow_insecure=False, observers=())"
        ),
    ),
    ("submit", PiAPI.submit, "(self, request, *, key=None, timeout=None, note=None)"),
    ("attach", PiAPI.attach, "(self, task, *, family=None)"),
    ("fetch", PiAPI.fetch, "(self, task_id, *, family=None)"),
    ("fetch_many", PiAPI.fetch_many, "(self, task_ids, *, family=None)"),
    ("cancel", PiAPI.cancel, "(self, *task_ids, family=None)"),
    ("close", PiAPI.close, "(self)"),
    ("wait", TaskHandle.wait, "(self, timeout=None, *, on_cancel='leave')"),
    ("refresh", TaskHandle.refresh, "(self)"),
    ("updates", TaskHandle.updates, "(self, timeout=None)"),
    ("handle.cancel", TaskHandle.cancel, "(self)"),
    ("as_completed", piapi_async.as_completed, "(handles, timeout=None)"),
    ("wait_all", piapi_async.wait_all, "(handles, timeout=None)"),
    (
        "download",
        piapi_async.download,
        (
            "(task, target, *, all_files=False, grid=False, session=None, retry=None, timeout=None, "
            "max_bytes=1073741824, parallel=64)"
        ),
    ),
    ("Ledger", Ledger, "(path)"),
    ("TaskRef", TaskRef, "(origin, family, task_id)"),
    ("TaskRef.to_json", TaskRef.to_json, "(self)"),
    ("TaskRef.from_json", TaskRef.from_json, "(text)"),
    ("RetryPolicy.never", RetryPolicy.never, "()"),
    ("PollPolicy.every", PollPolicy.every, "(seconds)"),
    ("PollPolicy.at_speed", PollPolicy.at_speed, "(self, speed)"),
    (
        "Imagine",
        piapi_async.Imagine,
        "(prompt, *, process_mode=None, aspect_ratio=None, skip_prompt_check=None, bot_id=None)",
    ),
    ("Reroll", piapi_async.Reroll, "(origin_task_id, *, prompt=None, skip_prompt_check=None)"),
    ("Upscale", piapi_async.Upscale, "(origin_task_id, index)"),
    (
        "Variation",
        piapi_async.Variation,
        "(origin_task_id, index, *, prompt=None, aspect_ratio=None, skip_prompt_check=None)",
    ),
    ("Inpaint", piapi_async.Inpaint, "(origin_task_id, *, mask, prompt=None, skip_prompt_check=None)"),
    ("Outpaint", piapi_async.Outpaint, "(origin_task_id, *, zoom_ratio, aspect_ratio=None, prompt=None)"),
    ("Pan", piapi_async.Pan, "(origin_task_id, *, direction, prompt=None)"),
    ("Describe", piapi_async.Describe, "(image_url, *, process_mode=None)"),
    ("Blend", piapi_async.Blend, "(image_urls, *, process_mode=None, dimension=None)"),
    ("Seed", piapi_async.Seed, "(origin_task_id)"),
]
VERBS = {
    "Imagine",
    "Reroll",
    "Upscale",
    "Variation",
    "Inpaint",
    "Outpaint",
    "Pan",
    "Describe",
    "Blend",
    "Seed",
}
WEBHOOK_FIELDS = ("webhook_endpoint", "webhook_secret", "notify_progress")


def verb_shape(cls: Callable[..., Any]) -> str:
    """Give the shape of a verb without the webhook fields, which all verbs share."""
    signature = inspect.signature(cls)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in WEBHOOK_FIELDS]
    assert len(signature.parameters) - len(kept) == len(WEBHOOK_FIELDS)
    return str(
        inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in kept])
    )


class TestSignatures:
    @for_each(("name", "function", "expected"), SIGNATURES, ids=[name for name, _, _ in SIGNATURES])
    def test_are_as_documented(self, name: str, function: Callable[..., Any], expected: str) -> None:
        assert (verb_shape(function) if name in VERBS else shape(function)) == expected

    @for_each("verb", sorted(VERBS))
    def test_of_every_verb_hold_the_webhook_fields_by_name(self, verb: str) -> None:
        parameters = inspect.signature(getattr(piapi_async, verb)).parameters

        assert tuple(parameters)[-len(WEBHOOK_FIELDS) :] == WEBHOOK_FIELDS
        for name in WEBHOOK_FIELDS:
            assert (parameters[name].kind, parameters[name].default) == (inspect.Parameter.KEYWORD_ONLY, None)

    @for_each(
        ("cls", "names"),
        [
            (
                PiAPI,
                {
                    *(
                        "submit",
                        "run",
                        "attach",
                        "fetch",
                        "fetch_many",
                        "cancel",
                        "cancel_pending",
                        "close",
                        "origin",
                    ),
                    *("stats", "upload", "account", "active_tasks", "history", "recover", "ledger"),
                    *("download", "read"),
                },
            ),
            (
                TaskHandle,
                {"task_id", "ref", "task", "frozen", "error", "wait", "refresh", "updates", "cancel"},
            ),
            (TaskRef, {"origin", "family", "task_id", "to_json", "from_json", "to_token", "from_token"}),
            (
                Task,
                {
                    *(
                        "task_id",
                        "status",
                        "state",
                        "progress",
                        "task_type",
                        "created_at",
                        "started_at",
                        "ended_at",
                    ),
                    *("error", "result", "images", "files", "raw", "cost", "ref"),
                    *("done", "ok", "to_dict", "to_json", "action"),
                },
            ),
        ],
    )
    def test_and_attributes_of_a_class_are_all_there_are(self, cls: type, names: set[str]) -> None:
        there = {*dir(cls), *(f.name for f in getattr(cls, "__attrs_attrs__", ()))}
        assert {name for name in there if not name.startswith("_")} == names

    @for_each(
        "function",
        [
            *(PiAPI.submit, PiAPI.fetch, PiAPI.fetch_many, PiAPI.cancel, PiAPI.close),
            *(TaskHandle.wait, TaskHandle.refresh, TaskHandle.cancel),
            *(piapi_async.wait_all, piapi_async.download),
        ],
    )
    def test_of_what_does_io_are_coroutine_functions(self, function: Callable[..., Any]) -> None:
        assert inspect.iscoroutinefunction(function)

    @for_each("function", [TaskHandle.updates, piapi_async.as_completed])
    def test_of_what_is_looped_over_are_async_generators(self, function: Callable[..., Any]) -> None:
        assert inspect.isasyncgenfunction(function)

    def test_of_attach_does_no_io(self) -> None:
        assert not inspect.iscoroutinefunction(PiAPI.attach)


def public_members() -> Iterator[tuple[str, object]]:
    """Give every public class and function, and every public method and property of the classes."""
    for name in sorted(NAMES - {"__version__", "LEGACY"}):
        value = getattr(piapi_async, name)
        yield name, value
        if isinstance(value, type):
            for member_name, member in vars(value).items():
                # What attrs makes of a plain field is a slot, documented with its class.
                if not member_name.startswith("_") and (
                    callable(member) or isinstance(member, (property, classmethod))
                ):
                    yield f"{name}.{member_name}", member


MEMBERS = dict(public_members())


class TestCompletion:
    @for_each(
        ("cls", "names"),
        [
            (Ledger, {"close", "counts", "entries", "find", "pending", "resolve", "unknown"}),
            (
                piapi_async.WebhookReceiver,
                {"adopt_timeout", "confirm", "counts", "handle", "routes", "secret", "url"},
            ),
        ],
    )
    def test_shows_what_is_for_users(self, cls: type, names: set[str]) -> None:
        assert {name for name in dir(cls) if not name.startswith("_")} == names

    def test_help_begins_with_what_to_look_at(self) -> None:
        first_screen = str(piapi_async.__doc__).splitlines()

        assert len(first_screen) < 40
        assert [
            name for name in ("PiAPI", "Ledger", "TaskHandle", "BatchRunner") if name not in str(first_screen)
        ] == []


class TestDocstrings:
    def test_are_there_and_are_sentences(self) -> None:
        first = {
            name: (inspect.getdoc(member) or "").partition("\n\n")[0].rstrip()
            for name, member in MEMBERS.items()
        }

        assert [name for name, text in first.items() if not text[:1].isupper()] == []
        assert [name for name, text in first.items() if not text.endswith((".", "::", "?"))] == []

    def test_are_looked_for_in_many_places(self) -> None:
        assert {
            "PiAPI",
            "PiAPI.submit",
            "TaskHandle.task",
            "Task.created_at",
            "TaskRef.from_json",
        } <= MEMBERS.keys()

    @for_each("name", ["to_http", "parse"])
    def test_of_what_all_requests_do_stand_in_their_protocol(self, name: str) -> None:
        assert inspect.getdoc(getattr(Request, name))

    def test_stand_in_every_public_module(self) -> None:
        bare = {
            path.name
            for path in Path(piapi_async.__file__).parent.glob("*.py")
            if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        }

        assert bare == set()


class TestAnnotations:
    @for_each(
        "name",
        # A handle is made by its client, and no value; it knows the client's class to type checkers only.
        [
            name
            for name, value in MEMBERS.items()
            if isinstance(value, type) and attrs.has(value) and value is not TaskHandle
        ],
    )
    def test_of_every_value_class_can_be_read_at_run_time(self, name: str) -> None:
        cls: Any = MEMBERS[name]

        assert get_type_hints(cls).keys() >= {field.name for field in attrs.fields(cls)}


class TestRequests:
    @for_each("verb", sorted(VERBS))
    def test_take_one_argument_by_position_and_perhaps_an_index(self, verb: str) -> None:
        parameters = inspect.signature(getattr(piapi_async, verb)).parameters
        kinds = [parameter.kind for parameter in parameters.values()]

        assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) == 1 + ("index" in parameters)
        assert set(kinds) == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
