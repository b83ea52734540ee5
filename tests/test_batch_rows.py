"""The files that people feed a batch: what each is found to be, which rows it has, what is said of it."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async.cli._batch import _json_values, _rows
from piapi_async.cli._batch._file_format import FileRefusedError, Kind, not_utf8, sniff
from piapi_async.cli._batch._rows import BadRow, Row, read_rows

KNOWN = {"verb", "key", "prompt", "origin_task_id", "aspect_ratio", "index"}
VERBS = {"imagine", "reroll", "upscale"}


def begins_row(cells: list[str]) -> bool:
    return cells[0] in VERBS


def read(data: bytes, suffix: str = "") -> list[Row | BadRow]:
    found = sniff(io.BytesIO(data), suffix, KNOWN)
    return list(read_rows(io.BytesIO(data), found, begins_row))


def cells(data: bytes, suffix: str = "") -> list[tuple[int, dict[str, Any]]]:
    """Return the numbers and cells of a file whose rows are all good."""
    rows = read(data, suffix)
    assert all(isinstance(row, Row) for row in rows), rows
    return [(row.number, dict(row.cells)) for row in rows if isinstance(row, Row)]


CAT = {"verb": "imagine", "prompt": "a cat"}
DOG = {"verb": "imagine", "prompt": "a dog"}
BOTH = [(2, CAT), (3, DOG)]

GOOD: dict[str, tuple[bytes, list[tuple[int, dict[str, Any]]]]] = {
    "comma": (b"verb,prompt\nimagine,a cat\nimagine,a dog\n", BOTH),
    "semicolon": (b"verb;prompt\nimagine;a cat\nimagine;a dog\n", BOTH),
    "tab": (b"verb\tprompt\nimagine\ta cat\nimagine\ta dog\n", BOTH),
    "sep=;": (b"sep=;\nverb;prompt\nimagine;a cat\n", [(3, CAT)]),
    "sep= of another kind": (b"sep=^\r\nverb^prompt\r\nimagine^a cat\r\n", [(3, CAT)]),
    "commas in a semicolon file": (
        b"verb;prompt\nimagine;a cat, a dog, a hen\n",
        [(2, {"verb": "imagine", "prompt": "a cat, a dog, a hen"})],
    ),
    "utf-8 bom": ("\ufeffverb,prompt\nimagine,a cat\nimagine,a dog\n".encode(), BOTH),
    "utf-16": ("verb\tprompt\r\nimagine\ta cat\r\nimagine\ta dog\r\n".encode("utf-16"), BOTH),
    "utf-16 big endian": (b"\xfe\xff" + "verb,prompt\nimagine,猫\n".encode("utf-16-be"),
                          [(2, {"verb": "imagine", "prompt": "猫"})]),
    "utf-16 json": ('{"verb": "imagine", "prompt": "a cat"}\n'.encode("utf-16"), [(1, CAT)]),
    "capitals and blanks": (
        b"Verb,Prompt,Aspect Ratio,Campaign Name\nimagine,a cat,4:3,spring\n",
        [(2, {**CAT, "aspect_ratio": "4:3", "Campaign Name": "spring"})],
    ),
    "blanks after commas": (b'verb, prompt\nimagine, "a cat, sitting"\n',
                            [(2, {"verb": "imagine", "prompt": "a cat, sitting"})]),
    "rows of nothing": (b"verb,prompt,,\nimagine,a cat,,\n,,,\n\n;\nimagine,a dog,,\n,,,\n".replace(b";\n", b""),
                        [(2, CAT), (5, DOG)]),
    "an unnamed index": (b",verb,prompt\n0,imagine,a cat\n1,imagine,a dog\n", BOTH),
    "a named unnamed index": (b"Unnamed: 0,verb,prompt\n0,imagine,a cat\n1,imagine,a dog\n", BOTH),
    "one column": (b'prompt\na cat, a dog\n"a cat, ""quoted""\nover lines"\n',
                   [(2, {"prompt": "a cat, a dog"}), (3, {"prompt": 'a cat, "quoted"\nover lines'})]),
    "old Mac's lines": (b"verb,prompt\rimagine,a cat\rimagine,a dog\r", BOTH),
    "crlf": (b"verb,prompt\r\nimagine,a cat\r\nimagine,a dog", BOTH),
    "quoted lines": (b'verb,prompt\nimagine,"a cat,\n\nand a dog"\nimagine,a dog\n',
                     [(2, {"verb": "imagine", "prompt": "a cat,\n\nand a dog"}), (5, DOG)]),
    "json lines": (b'{"verb":"imagine","prompt":"a cat"}\n\n{"verb":"imagine","prompt":"a dog"}', [(1, CAT), (3, DOG)]),
    "an array": (json.dumps([CAT, DOG]).encode(), [(1, CAT), (2, DOG)]),
    "an array over lines": (json.dumps([CAT, DOG], indent=2).encode(), [(1, CAT), (2, DOG)]),
    "an array with a bom": (b"\xef\xbb\xbf \n[" + json.dumps(CAT).encode() + b"]\n", [(1, CAT)]),
    "an empty array": (b" [ ] ", []),
    "what jq prints": ((json.dumps(CAT, indent=2) + "\n" + json.dumps(DOG, indent=2) + "\n").encode(),
                       [(1, CAT), (2, DOG)]),
    "csv called json": (b"verb,prompt\nimagine,a cat\n", [(2, CAT)]),
}  # fmt: skip


@for_each(("data", "expected"), GOOD.values(), ids=GOOD)
@for_each("suffix", ["", ".csv", ".jsonl", ".TXT"])
def test_a_file_is_read_for_what_it_is(data: bytes, expected: list[Any], suffix: str) -> None:
    assert cells(data, suffix) == expected


WHOLE = {
    "excel": (b"PK\x03\x04" + bytes(50), "Excel workbook .*CSV UTF-8"),
    "old excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
    "parquet": (b"PAR1" + bytes(9), "Parquet.*read_parquet"),
    "gzip": (b"\x1f\x8b\x08\x00", "gunzip -c FILE"),
    "a ledger": (b"SQLite format 3\x00", "--ledger"),
    "utf-16 without a mark": ("verb,prompt\n".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    "no header": (b"imagine,a cat\nimagine,a dog\n", "first line must name the columns.*'imagine', 'a cat'"),
    "a column twice": (b"verb,Prompt,prompt\nimagine,a,b\n", "two of its columns are called 'prompt'"),
    "windows in the header": (
        b"verb,prompt,Gr\xf6\xdfe\nimagine,a,b\n",
        "is Windows-1252, not UTF-8.*0xf6.*line 1",
    ),
    "an array cut off": (b'[{"verb": "imagine"},\n {"verb"', "not JSON: .*line 2"),
    "an array without an end": (b'[{"verb": "imagine"}\n', "closing bracket, is missing"),
    "an array that stops after a comma": (b'[{"verb": "imagine"},\n', "closing bracket is missing.*line 2"),
    "an array without commas": (b'[{"verb": "imagine"}\n{"verb": "imagine"}]', "comma between items"),
    "something after an array": (b"[]\n{}", "something after the array.*line 2"),
    "an array in Windows-1252": (b'[\n{"prompt": "caf\xe9"}]', "Windows-1252, not UTF-8: byte 0xe9.*line 2"),
    "damaged utf-16": (
        b"\xff\xfe" + "verb,prompt\nimagine,a\n".encode("utf-16-le") + b"\x00\xd8\x00",
        "UTF-16",
    ),
}


@for_each(("data", "said"), WHOLE.values(), ids=WHOLE)
@for_each("suffix", ["", ".csv"])
def test_what_is_wrong_with_the_whole_file_is_said_of_the_file(data: bytes, said: str, suffix: str) -> None:
    with pytest.raises(FileRefusedError, match=said):
        read(data, suffix)


def bad(data: bytes) -> list[tuple[int, str]]:
    return [(row.number, row.reason) for row in read(data) if isinstance(row, BadRow)]


def test_a_byte_that_is_not_utf_8_is_named_with_its_line() -> None:
    rows = read("verb,prompt\nimagine,a cat\nimagine,café\n".encode("cp1252"))

    assert isinstance(rows[1], BadRow)
    assert (rows[1].number, rows[1].byte, rows[1].text_before) == (3, 0xE9, False)
    whole = str(not_utf8(0xE9, "line 3", text_before=False))
    assert whole.startswith("it is Windows-1252, not UTF-8: byte 0xe9 ('é') in line 3.")


def test_one_bad_byte_in_utf_8_is_damage_and_not_another_encoding() -> None:
    [good, row] = read(b'{"prompt": "caf\xc3\xa9"}\n{"prompt": "caf\xe9"}\n')

    assert isinstance(good, Row)
    assert isinstance(row, BadRow)
    assert row.text_before
    assert "damaged" in str(not_utf8(0xE9, "line 2", text_before=True))
    assert "damaged" in str(not_utf8(0x81, "line 2", text_before=False))  # Windows-1252 has no such letter


@for_each(
    ("data", "said"),
    [
        (b'verb,prompt\nimagine,"a cat\nimagine,a dog\nimagine,a hen"\n', (2, "line 3 begins like a row")),
        (b'verb,prompt\nimagine,"a cat\nsits\nreroll,x\nhere"\nimagine,b\n', (2, "line 4 begins like a row")),
        (b'verb,prompt\nimagine,"a cat\nimagine,a dog\n', (2, "it is not CSV")),
        (b'verb,prompt\nimagine,"a cat" b\n', (2, "it is not CSV")),
        (b"verb,prompt\nimagine,a cat, a dog\n", (2, "more cells than the header has")),
        (b"verb,prompt,\nimagine,a cat,x\n", (2, "column 3 has a value but no name")),
    ],
)
def test_a_row_that_is_none_is_told_with_its_line(data: bytes, said: tuple[int, str]) -> None:
    [(number, reason)] = bad(data)

    assert number == said[0]
    assert said[1] in reason


def test_what_is_not_json_is_told_without_a_second_line_number() -> None:
    assert bad(b'{"a": 1}\n{"a": }\n') == [(2, "it is not JSON (Expecting value, column 7)")]
    assert bad(b'{"a": 1}\n' + b"[" * 100_000 + b"\n") == [(2, "it is not JSON (nested too deeply)")]
    assert bad(b"[[1]]") == [(1, "it is not a JSON object")]


class Endless(io.RawIOBase):
    """A stream of so many bytes, which are not held anywhere."""

    def __init__(self, begins: bytes, fill: bytes, size: int, ends: bytes) -> None:
        self._begins, self._fill, self._left, self._ends = begins, fill, size, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._begins:
            piece, self._begins = self._begins[: len(buffer)], self._begins[len(buffer) :]
        elif self._left > 0:
            piece = self._fill * (min(len(buffer), self._left) // len(self._fill))
            self._left -= len(piece)
        else:
            piece, self._ends = self._ends[: len(buffer)], self._ends[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    ("begins", "fill", "ends", "good"),
    [
        (b'{"prompt": "', b"x", b'"}\n{"prompt": "a cat"}\n', 1),
        (b"verb,prompt\nimagine,", b"x", b"\nimagine,a cat\n", 1),
        (b'verb,prompt\nimagine,"', b"x\n", b'"\nimagine,a cat\n', None),
    ],
)
def test_a_line_without_end_is_refused_within_bounded_memory(
    begins: bytes, fill: bytes, ends: bytes, good: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rows, "MAX_ROW", 2**16)
    found = sniff(io.BytesIO(begins + fill * 100_000), "", KNOWN)
    stream = io.BufferedReader(Endless(begins, fill, 2**24, ends))
    tracemalloc.start()
    rows = iter(read_rows(stream, found, begins_row))
    first = next(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(first, BadRow)
    assert "longer than" in first.reason
    assert peak < 2**20
    if good is not None:
        assert [row.cells["prompt"] for row in rows if isinstance(row, Row)] == ["a cat"]


def test_an_item_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json_values, "MAX_ROW", 2**16)
    with pytest.raises(FileRefusedError, match="item 2: it is longer than"):
        read(b'[{"a": 1}, {"a": "' + b"x" * 2**20 + b'"}]')


# -- whatever people write ------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=12)
objects = st.dictionaries(
    st.sampled_from(sorted(KNOWN)), texts | st.integers() | st.none(), min_size=1, max_size=4
)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])


@given(st.lists(objects), encodings, st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_come_back_as_they_were(values: list[dict[str, Any]], encoding: str, end: str) -> None:
    data = "".join(json.dumps(value, ensure_ascii=False) + end for value in values).encode(encoding)

    assert [row for _, row in cells(data, ".jsonl")] == values


@given(st.lists(objects), encodings, st.sampled_from([None, 1]))
def test_an_array_comes_back_as_it_was(
    values: list[dict[str, Any]], encoding: str, indent: int | None
) -> None:
    data = json.dumps(values, ensure_ascii=False, indent=indent).encode(encoding)

    assert cells(data) == list(enumerate(values, 1))


lines = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), min_size=1, max_size=12
)


@given(
    st.lists(st.tuples(lines, lines), min_size=1),
    encodings,
    st.sampled_from(",;\t"),
    st.sampled_from(["all", "minimal"]),
)
def test_csv_comes_back_as_it_was(
    rows: list[tuple[str, str]], encoding: str, delimiter: str, quotes: str
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(
        file, delimiter=delimiter, quoting=csv.QUOTE_ALL if quotes == "all" else csv.QUOTE_MINIMAL
    )
    writer.writerow(["prompt", "note"])
    for row in rows:
        writer.writerow(row)
        if quotes == "all":
            writer.writerow(["", ""])
    data = file.getvalue().encode(encoding)

    assert [row for _, row in cells(data)] == [{"prompt": one, "note": other} for one, other in rows]


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda data: b"verb,prompt\n" + data))
def test_any_bytes_are_rows_or_refused(data: bytes) -> None:
    try:
        rows = read(data)
    except FileRefusedError:
        return
    numbers = [row.number for row in rows]
    assert numbers == sorted(set(numbers))
    assert all(row.reason for row in rows if isinstance(row, BadRow))


@given(st.lists(objects, min_size=1, max_size=5), st.integers(1, 64))
def test_where_pieces_end_makes_no_difference(values: list[dict[str, Any]], piece: int) -> None:
    data = json.dumps(values, indent=1).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_values, "PIECE", piece)
        assert cells(data) == list(enumerate(values, 1))


@for_each(
    ("data", "kind"),
    [(b'{"a": 1}\n{"b"', Kind.JSON_LINES), (b"{\n", Kind.JSON_VALUES), (b'{"a": \n', Kind.JSON_LINES),
     (b"", Kind.JSON_LINES), (b"\n \n", Kind.JSON_LINES), (b'{"a":\n1}\n', Kind.JSON_VALUES)],
)  # fmt: skip
def test_the_beginning_tells_how_objects_are_written(data: bytes, kind: Kind) -> None:
    assert sniff(io.BytesIO(data), ".json", KNOWN).kind is kind


# -- a text on each line ----------------------------------------------------------------------------------------------

TEXTS: dict[str, tuple[bytes, list[tuple[int, dict[str, Any]]]]] = {
    "prompts": (b"a cat\n\n  a dog, asleep \r\n", [(1, {"prompt": "a cat"}), (3, {"prompt": "a dog, asleep"})]),
    "commas, quotes, brackets": (
        b'[a cat], {sleepy}\n{a dog}\n"quoted, prompt"\n',
        [(1, {"prompt": "[a cat], {sleepy}"}), (2, {"prompt": "{a dog}"}), (3, {"prompt": '"quoted, prompt"'})],
    ),
    "a byte-order mark": ("\ufeffune forêt\n".encode(), [(1, {"prompt": "une forêt"})]),
    "utf-16": ("猫\n".encode("utf-16"), [(1, {"prompt": "猫"})]),
    "a prompt that is the name of a field": (b"index\nkey, aspect ratio\n",
                                             [(1, {"prompt": "index"}), (2, {"prompt": "key, aspect ratio"})]),
    "csv all the same": (b"verb,prompt\nimagine,a cat\n", [(2, CAT)]),
    "a column of prompts": (b"Prompts\na cat, asleep\n", [(2, {"prompt": "a cat, asleep"})]),
    "json all the same": (b'{"verb": "imagine", "prompt": "a cat"}\n', [(1, CAT)]),
    "an array, longer than what is looked at": (
        b'[\n {"verb": "imagine", "prompt": "a cat"}' + b" " * 2**17 + b"]", [(1, CAT)],
    ),
}  # fmt: skip


@for_each(("data", "rows"), TEXTS.values(), ids=TEXTS)
def test_a_text_file_has_a_prompt_on_each_line(data: bytes, rows: list[tuple[int, dict[str, Any]]]) -> None:
    found = sniff(io.BytesIO(data), ".txt", KNOWN, "prompt")
    read = list(read_rows(io.BytesIO(data), found, begins_row))

    assert [(row.number, dict(row.cells)) for row in read if isinstance(row, Row)] == rows


def test_one_column_of_prompts_is_csv() -> None:
    assert cells(b"Prompts\na cat, asleep\n", ".csv") == [(2, {"prompt": "a cat, asleep"})]


def test_a_text_file_needs_a_verb() -> None:
    with pytest.raises(FileRefusedError, match="its lines are texts: name the verb"):
        sniff(io.BytesIO(b"a cat\na dog\n"), ".txt", KNOWN)
