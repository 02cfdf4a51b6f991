"""The quick decoder says what the exact one says, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.formats import jsonfiles, read
from tutelage.formats.bytestream import ByteStream
from tutelage.formats.nested import ExactDecoder
from tutelage.formats.quick_decoder import QuickDecoder
from tutelage.formats.rawrow import has_surrogate
from tutelage.ledger import Ledger
from tutelage.types import Drop

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/data"
ROWS_OF_SHAPES = Path(__file__).parent / "row_shapes/rows"
QUICK, EXACT = QuickDecoder(), ExactDecoder()

SPACES = st.sampled_from(["", "", " ", "\t", "\r\n", "\u00a0"])
CHARACTERS = st.sampled_from(
    [
        *("a", "b", "é", "😀", ":", "{", "]", "\u2028", "\x01", "\t", r"\"", r"\\", '":', r"\":", r"\u0022", r"\u003a"),
        *(r"\u0061", r"\ud83d\ude00", r"\ud800", r"\n", r"\/", r"\u00e9", r"\u00E9", r"\\u0022", r"\x"),
    ]
)
STRINGS = st.lists(CHARACTERS, max_size=4).map(lambda pieces: '"' + "".join(pieces) + '"')
NUMBERS = st.sampled_from(
    [
        *("0", "-0", "-0.0", "1", "01", "1.", "1e5", "1E+5", "1e-999", "1e999", "-1e999", "NaN", "Infinity", "nul"),
        *("9223372036854775807", "18446744073709551616", "-9223372036854775809", "1" + "0" * 400, "1" * 4400, "0.1"),
        *("123456789012345678901234567890.5", "1.7976931348623159e308", "5e-324", "true", "null", "-Infinity"),
    ]
) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
KEYS = st.sampled_from(['"a"', '"a"', '"b"', '"\\u0061"', '"a\\\\"', '""']) | STRINGS


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(SPACES, KEYS, SPACES, SPACES, inner).map(lambda p: f"{p[0]}{p[1]}{p[2]}:{p[3]}{p[4]}")
    ends = st.sampled_from(["", "", "", "", ","])
    objects = st.tuples(st.lists(pairs, max_size=4), ends).map(lambda p: "{" + ",".join(p[0]) + p[1] + "}")
    lists = st.tuples(st.lists(inner, max_size=3), SPACES).map(lambda p: "[" + f",{p[1]}".join(p[0]) + "]")
    return objects | objects | lists


TEXTS = st.recursive(STRINGS | NUMBERS, containers, max_leaves=12)


def exact(text: bytes) -> Any:
    """What the exact decoder takes as it is; None where it sees something to say, or fails."""
    try:
        decoded = text.decode()
        value = EXACT.decode(decoded)
    except (ValueError, RecursionError):
        return None
    is_plain = EXACT.is_finite and not EXACT.has_duplicate_key and isinstance(value, dict | list)
    return value if is_plain and not has_surrogate(value) else None


def agrees(text: bytes) -> bool:
    """Whether the quick decoder took the text; what it takes must be what the exact one takes, types and order too."""
    value = QUICK.container(text)
    assert value is None or repr(value) == repr(exact(text)), text
    return value is not None


@settings(max_examples=120, deadline=None)
@given(st.tuples(SPACES, TEXTS, SPACES).map("".join))
@example('{"a": 1, "a": 2}')
@example('{"": 1,"":1}')
@example('{"a": "\\u0022", "a": 1, "b": "\\u0022"}')
@example('{"a": {"b": [{"c": 1, "c": 1}]}}')
@example('{"a\\\\":1,"b":"\\":"}')
@example("[" * 2000 + "]" * 2000)
def test_what_the_quick_decoder_takes_is_what_the_exact_one_takes(text: str) -> None:
    agrees(text.encode("utf-8", "surrogatepass"))


@pytest.mark.nightly
@settings(max_examples=5000, deadline=None)
@given(st.tuples(SPACES, TEXTS, SPACES).map("".join))
def test_many_texts_are_read_alike(text: str) -> None:
    agrees(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=12), st.integers(0, 60))
def test_bytes_that_are_no_utf8_are_passed_on(noise: bytes, place: int) -> None:
    line = '{"messages": [{"role": "user", "content": "é \\" \\\\ 😀"}]}\n'.encode()
    agrees(line[:place] + noise + line[place:])


@pytest.mark.parametrize("spaces", [None, (",", ":"), (" , ", " : ")])
@pytest.mark.parametrize("ascii_alone", [True, False])
def test_ordinary_rows_are_taken(spaces: Any, ascii_alone: bool) -> None:
    call = json.dumps({"name": "f", "arguments": {"x": '"quoted": "\\'}})
    row = {"id": 7, "score": 0.5, "flag": None, "messages": [{"role": "user", "content": call + "é\n\t😀"}], "n": 2**70}
    assert agrees(json.dumps(row, separators=spaces, ensure_ascii=ascii_alone).encode() + b"\n")


ITEMS = st.lists(st.tuples(SPACES, TEXTS, SPACES).map("".join), max_size=4).map(",".join)
ARRAYS = st.tuples(SPACES, ITEMS, st.sampled_from(["", "", "", ",", "[]", "]"])).map(lambda p: f"{p[0]}[{p[1]}]{p[2]}")
WRAPPERS = st.tuples(ITEMS, KEYS).map(lambda p: f'{{"rows": [{{"a": 1}}, {p[0]}], {p[1]}: 2}}')


def rows_of(document: bytes, folder: Path) -> list[Any]:
    """What a document holds: rows, whether they still have the text of finite numbers, drops, and notes."""
    path, notes = folder / "document.json", list[Any]()
    path.write_bytes(document)
    rows = jsonfiles.json_document(ByteStream(path), "d", is_row=lambda row: "instruction" in row, note=notes.append)
    seen = [row if isinstance(row, Drop) else (row.address, repr(row.fields), row.text is None) for row in rows]
    return seen + notes


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@settings(max_examples=80, deadline=None)
@given(document=ARRAYS | ARRAYS | WRAPPERS, noise=st.sampled_from([b"", b"", b"", b"\xff", b"\xc3"]))
@example(document='[{"a": "\\ud800"}, {"b": 1, "b": 2}, {"c": 1e999}, {"d": NaN}, 3, {}]', noise=b"")
@example(document='[{"a": "X"}, {"b": {"c": 1, "c": 2}}, {"d": 1e999}, [1], {"a": 1}]', noise=b"\xff")
@example(document=' \n\n {"instruction": "a", "output": "b"}', noise=b"")
@example(document='{"rows": [{"a": 1}, 2, {"b": null}], "x": [{"b": 1}]}', noise=b"")
def test_a_document_is_read_as_by_the_exact_decoder_alone(document: str, noise: bytes, scratch: Path) -> None:
    if "1" * 4400 in document:
        return  # a number too long for Python; the next test speaks of it
    content = document.encode("utf-8", "surrogatepass").replace(b"X", noise or b"X")
    quick = rows_of(content, scratch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonfiles, "_quick_rows", lambda *_: None)
        assert quick == rows_of(content, scratch)


def test_an_item_that_python_cannot_hold_costs_itself_alone(scratch: Path) -> None:
    rows = rows_of(b'[{"a": 1}, {"a": ' + b"1" * 4400 + b'}, {"a": 2}]', scratch)
    assert [row.reason if isinstance(row, Drop) else row[1] for row in rows] == ["{'a': 1}", "bad_json", "{'a': 2}"]


def objects_of(folder: Path) -> Iterator[bytes]:
    """Lines that are objects, the first 200 of each file."""
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as stream:
            yield from (line for line in islice(stream, 200) if line.startswith(b"{"))


def test_rows_of_all_shapes_are_taken_alike() -> None:
    taken = [agrees(line) for line in objects_of(ROWS_OF_SHAPES)]
    assert len(taken) > 200
    assert sum(taken) >= 0.97 * len(taken)


def outcome_of(path: Path) -> Any:
    """All that reading a file gives: conversations with their metadata, and the books."""
    ledger = Ledger()
    try:
        rows = [(row, dict(row.metadata)) for row in read([str(path)], ledger=ledger)]
    except DataError as error:
        return str(error)
    return rows, ledger.as_dict()


def test_a_file_of_each_shape_is_read_as_by_the_exact_decoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(ROWS_OF_SHAPES.glob("*.jsonl"))
    quick = [outcome_of(path) for path in paths]
    monkeypatch.setattr(QuickDecoder, "container", lambda _self, _text: None)
    assert len(paths) > 150
    for path, outcome in zip(paths, quick, strict=True):
        assert outcome == outcome_of(path), path.name


@pytest.mark.skipif(not MATERIAL.is_dir(), reason="the published files are beside the checkout alone")
def test_published_rows_are_taken_alike() -> None:
    taken = [agrees(line) for line in objects_of(MATERIAL)]
    assert len(taken) > 1000
    assert sum(taken) >= 0.97 * len(taken)
