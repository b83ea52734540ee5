"""The rooms of the package: each module imports only those above it, and the pure ones do no I/O."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest
from attrs import frozen
from support.tables import for_each

import piapi_async

PACKAGE = Path(piapi_async.__file__).parent

GUIDE = PACKAGE.parent / ".github" / "CONTRIBUTING.md"


def order_of_the_picture() -> list[str]:
    """Return the rooms (modules of the root, and folders) as the guide draws them, from the ground up."""
    picture = GUIDE.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    rows = (re.split(" {3,}", line)[0].split() for line in reversed(picture.splitlines()))
    return [room.rstrip("/") for row in rows for room in row]


ORDER = order_of_the_picture()  # a room imports only what stands before it
PURE = {
    *("_http", "_text", "_html", "_refs", "tasks", "errors", "_protocol", "_verdict"),
    *("midjourney", "unified", "legacy", "_legnext", "models", "_families", "account", "policy", "stats"),
}
# Folders whose docstring says what they may import.
FOLDERS = [
    *("_protocol", "_legnext", "observe", "_calls", "_wait", "ledger", "_submit"),
    *("downloads", "_client", "batch", "webhooks", "fleet"),
]
# Those of the emulator, from the ground up.
EMULATOR_FOLDERS = ["_service", "_media", "_api", "_server"]
IMPURE_IMPORTS = {
    *(
        "aiohttp",
        "anyio",
        "asyncio",
        "time",
        "socket",
        "ssl",
        "threading",
        "selectors",
        "subprocess",
        "os",
        "pathlib",
    ),
    *("sqlite3", "logging", "urllib.request", "http.client"),
}
NAMES_OF_FILES = {"tasks": {"pathlib.Path"}}  # others take `PurePath`: a name, which opens nothing
SHARED_WITH_THE_EMULATOR = {"_http": {"HTTPRequest", "HTTPResponse"}}


@frozen
class Import:
    """One import: `module` in full, `name` what is taken from it ("" for the whole)."""

    module: str
    name: str
    line: int

    @property
    def whole(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def room_of(path: Path) -> str:
    """Give the module, or the sub-package, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(scope="module", autouse=True)
def no_trees_afterwards() -> Iterator[None]:
    """Keep no hundred thousands of nodes, among which every later search for garbage would have to look."""
    yield
    walk.cache_clear()
    parse.cache_clear()


def is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


@cache
def walk(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Return all that runs: what stands under TYPE_CHECKING does not."""
    rest: list[ast.AST] = [tree]
    for node in rest:
        rest += node.orelse if is_for_type_checkers(node) else ast.iter_child_nodes(node)
    return tuple(rest)


def imports_of(path: Path, tree: ast.Module, *, types: bool = False) -> Iterator[Import]:
    """Return the imports of a file; with `types` those that only a type checker sees, too."""
    package = ("piapi_async", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree) if types else walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)


def promised_imports(folder: str) -> set[str]:
    """Return what a folder may import, by the last line of its docstring."""
    doc = ast.get_docstring(parse(PACKAGE / folder / "__init__.py")) or ""
    head, _, names = doc.rpartition("May import: ")
    assert head, f"the docstring of {folder} does not say what it may import"
    return set(" ".join(names.split()).rstrip(".").split(", "))


def is_inside(module: str, rooms: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


def own_room(found: Import) -> str | None:
    """Give the room of this package that an import enters, "" for the package itself, None for another package."""
    package, *parts = found.whole.split(".")
    if package != "piapi_async":
        return None
    if parts and ((PACKAGE / f"{parts[0]}.py").exists() or (PACKAGE / parts[0]).is_dir()):
        return parts[0]
    return ""


def places(paths: Iterable[Path], wrong: Callable[[Path], Iterable[tuple[int, str]]]) -> list[str]:
    """Return every place that is wrong in these files, in a way that an editor finds it."""
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {text}" for path in paths for line, text in wrong(path)
    ]


def pure_files() -> list[Path]:
    return [path for path in files() if room_of(path) in PURE]


class TestDirection:
    def test_every_module_has_its_place(self) -> None:
        assert {room_of(path) for path in files()} - set(ORDER) == set()

    def test_every_place_is_given_once(self) -> None:
        assert len(ORDER) == len(set(ORDER))

    def test_a_module_imports_only_those_above_it(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            room = room_of(path)
            above = {*ORDER[: ORDER.index(room)], room} if room in ORDER else set()
            return [
                (found.line, found.whole)
                for found in imports_of(path, parse(path), types=True)
                if (entered := own_room(found)) is not None and entered not in above
            ]

        assert places(files(), wrong) == []

    @for_each("folder", FOLDERS)
    def test_a_folder_imports_what_its_docstring_says(self, folder: str) -> None:
        allowed = promised_imports(folder)
        wrong = [
            f"{path.relative_to(PACKAGE)}:{found.line}: {found.whole}"
            for path in files()
            if room_of(path) == folder
            for found in imports_of(path, parse(path), types=True)
            if (entered := own_room(found)) is not None and entered not in {*allowed, folder}
        ]

        assert wrong == []
        assert allowed < set(ORDER[: ORDER.index(folder)])

    def test_the_package_itself_imports_only_what_needs_no_aiohttp(self) -> None:
        init = PACKAGE / "__init__.py"
        entered = {own_room(found) for found in imports_of(init, parse(init))} - {None}

        assert entered <= {*PURE, "_version"}


class TestPurity:
    def test_a_pure_module_neither_waits_nor_tells_the_time_nor_opens_anything(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            return [
                (found.line, found.whole)
                for found in imports_of(path, parse(path))
                if any(f"{found.whole}.".startswith(f"{impure}.") for impure in IMPURE_IMPORTS)
                and found.whole not in NAMES_OF_FILES.get(room_of(path), {"pathlib.PurePath"})
            ]

        assert places(pure_files(), wrong) == []

    def test_a_pure_module_has_no_coroutine(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            return [
                (node.lineno, "async")
                for node in walk(parse(path))
                if isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await))
            ]

        assert places(pure_files(), wrong) == []

    def test_a_pure_module_is_handed_its_randomness(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            # `Random` as a type is welcome; making one, or calling the module's own generator, is not.
            return [
                (node.lineno, ast.unparse(node))
                for node in walk(parse(path))
                if isinstance(node, ast.Call)
                and ast.unparse(node.func).startswith(("random.", "Random", "secrets.", "uuid."))
            ]

        assert places(pure_files(), wrong) == []


class TestTheEmulator:
    @for_each("folder", EMULATOR_FOLDERS)
    def test_its_folders_import_what_their_docstrings_say(self, folder: str) -> None:
        allowed = promised_imports(f"emulator/{folder}")
        rooms = {f"piapi_async.{room}" for room in allowed & {*ORDER}}
        rooms |= {f"piapi_async.emulator.{room}" for room in {*allowed, folder} - {*ORDER}}
        wrong = [
            f"{path.relative_to(PACKAGE)}:{found.line}: {found.whole}"
            for path in (PACKAGE / "emulator" / folder).glob("*.py")
            for found in imports_of(path, parse(path), types=True)
            if found.module.split(".")[0] == "piapi_async" and not is_inside(found.whole, rooms)
        ]

        assert wrong == []
        assert allowed - {*ORDER, "nothing"} <= {
            *EMULATOR_FOLDERS[: EMULATOR_FOLDERS.index(folder)],
            "faults",
        }

    def test_shares_nothing_with_the_client_but_two_values(self) -> None:
        shared: dict[str, set[str]] = {}
        # `_client` is there to hand out a client: nothing of the service itself may lean on it.
        for path in files():
            inside = room_of(path) == "emulator" and path.name != "_client.py"
            for found in imports_of(path, parse(path)) if inside else ():
                if (entered := own_room(found)) not in {None, "emulator", "_version"}:
                    shared.setdefault(str(entered), set()).add(found.name)

        assert shared.keys() <= SHARED_WITH_THE_EMULATOR.keys()
        assert all(names <= SHARED_WITH_THE_EMULATOR[module] for module, names in shared.items())

    def test_only_its_user_meets_the_client_that_it_hands_out(self) -> None:
        leaning = {
            path.name
            for path in files()
            for found in imports_of(path, parse(path))
            if room_of(path) == "emulator" and found.whole == "piapi_async.emulator._client.client"
        }

        assert leaning == {"_emulator.py"}

    def test_is_used_by_nothing_but_the_doors(self) -> None:
        users = {
            room_of(path)
            for path in files()
            for found in imports_of(path, parse(path))
            if own_room(found) == "emulator"
        }

        assert users <= {"emulator", "pytest_plugin", "cli", "__main__"}


class TestHabits:
    def test_anyio_and_aiohttp_are_named_where_they_are_used(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            # anyio has a public TaskHandle of its own; `aiohttp.web` is a module, and stays one.
            return [
                (found.line, found.whole)
                for found in imports_of(path, parse(path))
                if found.name
                and found.module.split(".")[0] in {"anyio", "aiohttp"}
                and found.whole != "aiohttp.web"
            ]

        assert places(files(), wrong) == []

    def test_what_a_module_holds_at_its_top_and_could_change_is_named_as_a_constant(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            return [
                (node.lineno, ast.unparse(target))
                for node in parse(path).body
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_mutable(node.value)
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if not (ast.unparse(target).isupper() or ast.unparse(target) == "__all__")
            ]

        assert places(files(), wrong) == []

    def test_no_function_changes_its_module(self) -> None:
        def wrong(path: Path) -> list[tuple[int, str]]:
            return [
                (node.lineno, ast.unparse(node))
                for node in ast.walk(parse(path))
                if isinstance(node, ast.Global)
            ]

        assert places(files(), wrong) == []

    def test_every_module_says_what_it_is(self) -> None:
        silent = [path.name for path in files() if not ast.get_docstring(parse(path))]

        assert silent == []


MAKERS_OF_MUTABLES = {
    "list",
    "dict",
    "set",
    "bytearray",
    "deque",
    "defaultdict",
    "Counter",
    "OrderedDict",
    "count",
}


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in MAKERS_OF_MUTABLES
    return isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))


class TestTheseChecks:
    """A check that never fails checks nothing."""

    @for_each(
        ("source", "expected"),
        [
            ("import aiohttp", ["aiohttp"]),
            ("from . import _verdict as verdict", ["piapi_async._verdict"]),
            ("from .errors import PiAPIError", ["piapi_async.errors.PiAPIError"]),
            ("def f():\n    from .client import PiAPI", ["piapi_async.client.PiAPI"]),
            ("if TYPE_CHECKING:\n    from .client import PiAPI", []),
            ("if TYPE_CHECKING:\n    import aiohttp\nelse:\n    import anyio", ["anyio"]),
        ],
    )
    def test_see_the_imports_that_run(self, source: str, expected: list[str]) -> None:
        assert [found.whole for found in imports_of(PACKAGE / "tasks.py", ast.parse(source))] == expected

    def test_see_where_a_sub_packages_imports_lead(self) -> None:
        tree = ast.parse(
            "from .._verdict import Verdict\nfrom ._client import client\nfrom .. import midjourney"
        )
        found = imports_of(PACKAGE / "emulator" / "_emulator.py", tree)

        assert {own_room(one) for one in found} == {"_verdict", "emulator", "midjourney"}

    @for_each("source", ["[]", "{}", "{1}", "dict()", "collections.deque()", "[x for x in y]"])
    def test_know_what_can_change(self, source: str) -> None:
        assert is_mutable(ast.parse(source, mode="eval").body)

    @for_each("source", ["()", "frozenset()", "'text'", "5", "re.compile('')", "Structure(Task)"])
    def test_know_what_cannot(self, source: str) -> None:
        assert not is_mutable(ast.parse(source, mode="eval").body)


# A logger of a whole module, under any name, or a line written past all loggers.
_WRITES_LOG = (
    r"^\w+(: [\w.]+)? = (logging\.)?getLogger\("
    r"|\blogging\.(debug|info|warning|error|exception|critical|log)\("
)


def test_the_log_is_written_in_one_place() -> None:
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in files()
        if room_of(path) not in {"emulator", "pytest_plugin"}
        and re.search(_WRITES_LOG, path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert writers == {"observe/_log.py"}
