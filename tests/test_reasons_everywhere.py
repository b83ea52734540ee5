"""No error tells end users what is for operators, wherever in the package it is raised."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.picture_tasks import picture_task

import piapi_async
from piapi_async import PiAPIError, Reroll, TaskRef, TaskState, errors
from piapi_async.tasks import TaskId

TASK_ID = "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"
FOR_OPERATORS = (
    TASK_ID,
    TASK_ID.replace("-", ""),
    "/srv/bot/orders.db",
    r"C:\bot\orders.db",
    "https://cdn.example/a.png?token=hush",
    "s3://orders/run",
    "sk-live-Zx9YwVvUuTtSsRrQq",
)
COMMAND = "piapi-async ledger resolve orders.db"  # which no host says

CLASSES = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, (PiAPIError, errors.KeyReused))
]
REF = TaskRef("https://api.example", "legacy", TaskId(TASK_ID))


def values(words: str) -> dict[str, Any]:
    """Return what an error may be given beside its message, by the argument's name."""
    task = evolve(picture_task("https://cdn.example/a.png"), state=TaskState.FAILED, error=words)
    return {
        "sent": True, "status": 400, "message": words, "body": words, "request": Reroll(TASK_ID), "ref": REF,
        "refs": (REF,), "path": words, "excerpt": words, "at": 0.0, "key": words, "candidates": (REF,),
        "task": task, "url": words, "files": (words,), "retry_after": 1.0, "untrusted": False,
    }  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
@settings(max_examples=6, deadline=None)
@given(
    st.permutations(FOR_OPERATORS), st.sampled_from(["{}", "no {} here", "open {}: denied", "({})", "'{}',"])
)
def test_whatever_an_error_holds_end_users_see_none_of_it(cls: Any, secrets: list[str], frame: str) -> None:
    words = " ".join(frame.format(secret) for secret in secrets)
    taken = inspect.signature(cls.__init__).parameters
    given_it = {name: value for name, value in values(words).items() if is_keyword(taken.get(name))}

    reason = cls(f"{words} {COMMAND}", **given_it).reason

    assert reason
    assert [] == [secret for secret in (*FOR_OPERATORS, COMMAND) if secret in reason]


def test_no_module_makes_a_reason_of_its_own() -> None:
    """What is raised takes its reason from `errors` alone, so that the test above speaks of every place."""
    root = Path(piapi_async.__file__).parent
    ours = {cls.__name__ for cls in CLASSES}
    found = []
    for path in root.rglob("*.py"):
        if path.name == "errors.py" or "emulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.ClassDef, ast.Call, ast.Assign)):
                continue
            is_ours = isinstance(node, ast.ClassDef) and ours & {ast.unparse(base) for base in node.bases}
            if (
                isinstance(node, ast.ClassDef)
                and is_ours
                and {"reason", "_for_users", "_words_of_the_host"} & names_set_in(node)
            ):
                found.append(f"{path.name}: {node.name}")
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ours:
                found += [f"{path.name}:{node.lineno}" for word in node.keywords if word.arg == "message"]
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Attribute) and target.attr == "message" for target in node.targets
            ):
                found.append(f"{path.name}:{node.lineno}")

    assert found == []


def names_set_in(node: ast.AST) -> set[str]:
    """Return the names that a class defines."""
    functions = {one.name for one in ast.walk(node) if isinstance(one, ast.FunctionDef)}
    return functions | {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def is_keyword(parameter: inspect.Parameter | None) -> bool:
    """Return whether an argument is one that stands beside the message."""
    return parameter is not None and parameter.kind is parameter.KEYWORD_ONLY
