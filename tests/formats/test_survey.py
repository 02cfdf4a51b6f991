"""A row of a short file is parsed once, and reads as it does where the file is read twice."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.builders.dataset import prepare
from tutelage.config import from_mapping
from tutelage.errors import DataError
from tutelage.formats import data_files as data_files_module
from tutelage.formats import describe, read, survey
from tutelage.formats.quick_decoder import QuickDecoder
from tutelage.formats.sources import find_files
from tutelage.ledger import Ledger

GOOD = [{"instruction": f"question {number}", "output": "an answer", "id": number} for number in range(6)]
LINES = "".join(json.dumps(row) + "\n" for row in GOOD)
BAD = '{"instruction": "a", "instruction": "b", "output": "c"}\noops\n[1]\n{"instruction": null, "output": "x"}\n'
NOT_FINITE = '{"instruction": "a", "output": "b", "score": [NaN, {"deep": [1e999]}]}\n'


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row | {"more": [{"a": 1}]} for row in GOOD]), buffer)
    return buffer.getvalue()


FILES: dict[str, bytes] = {
    "lines.jsonl": (LINES + BAD + NOT_FINITE + '{"text": "another shape"}\n').encode(),
    "lines.jsonl.gz": gzip.compress((LINES + BAD).encode()),
    "damaged.jsonl.gz": gzip.compress((LINES * 4000).encode())[:-2000],
    "array.json": json.dumps(GOOD).encode(),
    "damaged.json": json.dumps(GOOD, indent=1).encode()[:-40],
    "wrapped.json": json.dumps({"rows": GOOD}).encode(),
    "header.csv": b"instruction,output,id\nq,a,1\nq,a\nq,a,\n",
    "no_header.csv": b"what is it,it is that\nand this,it is this\n",
    "table.tsv": b"instruction\toutput\nq\ta\n",
    "plain.txt": b"one paragraph\n\nand another\n",
    "table.parquet": parquet(),
}


def all_of(path):
    """All that a reading and a description give, to be compared."""
    ledger, entries, columns = Ledger(), [], {"prompt": "0", "response": "1"} if path.name == "no_header.csv" else None
    ledger.listener = entries.append
    conversations = list(read([str(path)], ledger=ledger, columns=columns))
    return conversations, entries, ledger.as_dict(), describe([str(path)], columns=columns)


@pytest.fixture
def passes(monkeypatch):
    """Counts the passes over a file, by its name."""
    counts: Counter[str] = Counter()

    def counted(file, kind, **others):
        counts[file.path.name] += 1
        return raw_rows(file, kind, **others)

    raw_rows = survey.raw_rows
    monkeypatch.setattr(survey, "raw_rows", counted)
    return counts


@pytest.mark.parametrize("name", FILES)
def test_kept_rows_are_those_of_a_second_pass(put, passes, monkeypatch, name):
    path = put(name, FILES[name])
    kept = all_of(path)
    assert passes[name] == 2, "one pass to read and one to describe"
    monkeypatch.setattr(survey, "KEPT_CHARACTERS", 0)
    assert all_of(path) == kept
    assert passes[name] == 2 + 4, "two passes for each where nothing is kept"
    assert kept[0]
    notes = kept[2]["notes"]
    assert len(notes) == len(set(notes))
    assert sorted(kept[3].files[0].notes + kept[3].notes) == sorted(notes)


@pytest.fixture
def decodes(monkeypatch):
    """Counts how often each text is decoded."""
    counts: Counter[str] = Counter()

    def counted(self, text):
        counts[text.decode().strip()] += 1
        return container(self, text)

    container = QuickDecoder.container
    monkeypatch.setattr(QuickDecoder, "container", counted)
    return counts


def test_each_row_of_a_short_file_is_decoded_once(put, decodes):
    assert len(list(read([str(put("a.jsonl", LINES))], ledger=Ledger()))) == len(GOOD)
    assert decodes == Counter(dict.fromkeys(LINES.splitlines(), 1))


def test_rows_beyond_the_bound_are_read_again_and_none_is_kept(put, decodes, monkeypatch):
    monkeypatch.setattr(survey, "KEPT_CHARACTERS", 3 * (survey.ROW_CHARACTERS + 60))
    rows = read([str(put("a.jsonl", LINES))], ledger=Ledger(), max_rows=2)
    assert len(list(rows)) == 2
    assert [decodes[line] for line in LINES.splitlines()] == [2, 2, 2, 1, 1, 1], "one row beyond the two is looked at"


@pytest.mark.parametrize("row", [{"a": 1}, {"a": "x" * 100}, {"a": [["y" * 50], {"b": b"z" * 50}]}])
def test_what_is_kept_is_bounded_by_rows_and_by_their_text(row, monkeypatch):
    monkeypatch.setattr(survey, "KEPT_CHARACTERS", 10_000)
    address = survey.Address("a", 1)
    most = 0
    kept = survey._KeptRows()
    for _ in kept.from_pass(iter([survey.RawRow(address, row) for _ in range(100)])):
        most = max(most, len(kept._rows))
    text = 100 if len(str(row)) > 100 else 0
    assert 10_000 / (survey.ROW_CHARACTERS + text + 64) <= most + 1 <= 10_000 / (survey.ROW_CHARACTERS + text) + 1
    assert not kept.is_whole
    assert not kept._rows


def test_kept_rows_are_forgotten_as_they_go():
    kept = survey._KeptRows()
    list(kept.from_pass(iter([survey.RawRow(survey.Address("a", 1), {"a": 1}) for _ in range(5)])))
    rows = kept.drained()
    next(rows)
    assert len(kept._rows) == 4


def test_files_are_found_once_and_once_more_after_reading(put, monkeypatch, tiny_tokenizer_folder):
    found = []

    def counted(sources, note):
        found.append(list(sources))
        return find_files(sources, note)

    monkeypatch.setattr(data_files_module, "find_files", counted)
    path = str(put("a.jsonl", LINES))
    prepare(
        from_mapping({"model": {"name": "tiny"}, "data": {"train": [path], "workers": 1}}, [], where="test"),
        tiny_tokenizer_folder,
    )
    assert found == [[path], [path]]


def test_a_file_that_changes_while_its_rows_are_kept_is_noticed(put, monkeypatch, tiny_tokenizer_folder):
    path = put("a.jsonl", LINES)
    drained = survey._KeptRows.drained

    def changing(self):
        path.write_text(LINES.replace("answer", "ANSWER"), encoding="utf-8")
        return drained(self)

    monkeypatch.setattr(survey._KeptRows, "drained", changing)
    settings = from_mapping({"model": {"name": "tiny"}, "data": {"train": [str(path)], "workers": 1}}, [], where="test")
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(settings, tiny_tokenizer_folder)
