"""Gzip files that break off, and gzip files that say otherwise than their checksum."""

from __future__ import annotations

import gzip
import json
import os
import random
import tracemalloc
import zlib

import pytest

from tutelage.errors import DataError
from tutelage.formats import read
from tutelage.formats.bytestream import ByteStream
from tutelage.ledger import Ledger


def rows(count):
    draw = random.Random(3)
    return [{"prompt": f"Question {number}", "completion": f"it is {draw.random()}"} for number in range(count)]


def packed(many):
    return gzip.compress("".join(json.dumps(row) + "\n" for row in many).encode(), mtime=0)


def kept(path):
    """The rows of a file as (prompt, completion); none where it is refused."""
    try:
        return [tuple(said.content for said in row.messages) for row in read([str(path)], ledger=Ledger())]
    except DataError:
        return []


def test_b6_no_flipped_bit_gives_other_words(put):
    many = rows(60)
    whole, written = packed(many), {(row["prompt"], row["completion"]) for row in many}
    path = put("a.jsonl.gz", whole)
    assert set(kept(path)) == written
    refused = 0
    for place in range(0, len(whole) * 8, 17):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        given = kept(path)
        assert set(given) <= written, f"bit {place} gives other words"
        refused += not given
    assert refused > len(whole) * 8 // 20  # all but some bits of the header, which say nothing of the content


def test_b6_every_member_is_checked(put, load):
    first, second = packed(rows(40)), packed(rows(80))
    both = bytearray(first + second)
    assert len(load(put("a.jsonl.gz", bytes(both))).conversations) == 120
    for place in (len(first) // 2, len(first) - 6, len(first) + len(second) // 2, len(both) - 6):
        flipped = both.copy()
        flipped[place] ^= 4
        with pytest.raises(DataError) as caught:
            load(put("b.jsonl.gz", bytes(flipped)))
        assert "gzip" in str(caught.value)
        assert "b.jsonl.gz" in str(caught.value)
        assert caught.value.fix == "copy or download it again"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz"])
def test_b6_in_every_kind_of_file(put, load, name):
    lines = [f"p{number},{zlib.crc32(str(number).encode())}" for number in range(3000)]
    text = {
        "a.jsonl.gz": "".join(json.dumps(row) + "\n" for row in rows(3000)),
        "a.json.gz": json.dumps(rows(3000)),
        "a.csv.gz": "prompt,completion\n" + "\n".join(lines),
        "a.txt.gz": "\n\n".join(lines),
    }[name]
    whole = gzip.compress(text.encode(), mtime=0)
    wrong = bytearray(whole)
    wrong[-6] ^= 1
    with pytest.raises(DataError, match="gzip file is damaged"):
        load(put(name, bytes(wrong)))
    cut = load(put(name, whole[: len(whole) * 2 // 3]))
    assert cut.ledger.dropped["damaged_gzip"] == 1
    assert len(cut.conversations) > 500


def test_b6_a_whole_file_that_runs_on_over_its_end_is_refused(put):
    path = put("a.gz", packed(rows(50)))
    stream = ByteStream(path)
    assert stream._has_trailer(len(stream.read_all()))
    assert not ByteStream(put("b.gz", b"\x1f\x8b" + bytes(20) + b"\xff" * 4))._has_trailer(1000)


def test_b6_checking_takes_no_memory(put):
    path = put("a.jsonl.gz", packed(rows(60_000)))
    tracemalloc.start()
    assert sum(1 for _ in ByteStream(path).lines()) == 60_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("cut", [1, 8, 9, 12, 30, 60])
def test_d7_one_line_that_breaks_off_is_an_error_of_the_file(put, load, cut):
    row = {"prompt": "q", "completion": "a longer answer, so that there is something to cut"}
    whole = packed([row])
    for name in ("a.jsonl.gz", "a.json.gz", "a.csv.gz"):
        path = put(name, whole[:-cut])
        if kept(path) == [("q", row["completion"])]:  # its checksum alone is missing
            assert cut in {8, 9}
            continue
        with pytest.raises(DataError) as caught:
            load(path)
        assert name in str(caught.value)
        assert caught.value.fix in {"copy or download it again", "check how it was written or copied"}


def test_d7_breaks_inside_the_first_of_many_rows(put, load):
    long_row = {"prompt": "q", "completion": "".join(random.Random(1).choices("abcdefgh", k=200_000))}
    whole = packed([long_row, *rows(3)])
    with pytest.raises(DataError, match=r"damaged_gzip|No row"):
        load(put("a.jsonl.gz", whole[: len(whole) // 2]))


def test_d11_a_file_that_cannot_be_opened_is_a_data_error(put, load, monkeypatch):
    path = put("a.jsonl", json.dumps(rows(1)[0]))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="cannot be opened") as caught:
        load(path)
    assert "Permission denied" in str(caught.value)
    monkeypatch.undo()

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(DataError, match="cannot be read") as caught:
        load(path)
    assert "a.jsonl" in str(caught.value)
