from __future__ import annotations

import gzip
import json

import pytest

from tutelage.errors import DataError
from tutelage.formats.jsonfiles import json_document

ROW = {"instruction": "Say hi", "output": "hi"}
LINE = json.dumps(ROW)
HI = [("user", "Say hi"), ("assistant", "hi")]


def reasons(result):
    return dict(result.ledger.dropped)


def only_detail(result, reason):
    return result.ledger.drop_samples[reason][0].detail


def test_lines_with_blank_ones_and_a_mark_keep_their_line_numbers(put, load):
    result = load(put("a.jsonl", "\ufeff" + LINE + "\n\n  \r\n" + LINE + "\r\n" + LINE))
    assert result.texts == [HI] * 3
    assert [conversation.address.number for conversation in result.conversations] == [1, 4, 5]
    assert str(result.conversations[1].address).endswith("a.jsonl:4")


def test_only_the_newline_byte_ends_a_line(put, load):
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\u00a0"
    result = load(put("a.jsonl", json.dumps({"prompt": text, "completion": text}, ensure_ascii=False) + "\n"))
    assert result.texts == [[("user", text), ("assistant", text)]]


def test_text_is_never_altered(put, load):
    text = "  \t<|im_end|> \r\n x \u200b "
    result = load(put("a.jsonl", json.dumps({"prompt": text, "completion": text})))
    assert result.texts == [[("user", text), ("assistant", text)]]


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        (b'{"instruction": "a" "output": "b"}', "bad_json", "column 21"),
        (b'{"instruction": nope}', "bad_json", "found 'nope}'"),
        (b"[" * 100_000, "bad_json", "nested too deep"),
        (b'{"instruction": ' + b"9" * 5000 + b"}", "bad_json", "integer string conversion"),
        (b'["a", "b"]', "not_an_object", "a list"),
        (b'"text"', "not_an_object", "a string"),
        (b"null", "not_an_object", "null"),
        (b'{"instruction": "caf\xe9", "output": "b"}', "invalid_utf8", "0xe9"),
        (b'{"instruction": "\\ud83d", "output": "b"}', "lone_surrogate", "half"),
        (b'{"instruction": "a", "output": "b", "meta": {"k": ["\\uDE00"]}}', "lone_surrogate", "half"),
        (b'{"instruction": "a", "output": 3}', "wrong_type", "found a number"),
        (b'{"instruction": "a", "input": "b"}', "missing_field", "output"),
        (b'{"instruction": " ", "output": "b"}', "missing_field", "empty"),
        (b'{"instruction": "a", "output": " \\n"}', "empty_reply", "turn 1"),
    ],
)
def test_a_bad_line_costs_itself_and_says_why(put, load, line, reason, words):
    result = load(put("a.jsonl", LINE.encode() + b"\n" + line + b"\n" + LINE.encode() + b"\n"))
    assert result.texts == [HI, HI]
    assert reasons(result) == {reason: 1}
    drop = result.ledger.drop_samples[reason][0]
    assert drop.address.number == 2
    assert words in drop.detail or (words == "half" and "other half" in drop.detail)


def test_a_pair_of_surrogate_escapes_is_text(put, load):
    result = load(put("a.jsonl", '{"instruction": "\\ud83d\\ude00", "output": "b"}\n'))
    assert result.texts == [[("user", "\U0001f600"), ("assistant", "b")]]


def test_a_truncated_last_line_says_so(put, load):
    result = load(put("a.jsonl", LINE + "\n" + LINE[:-6]))
    assert result.texts == [HI]
    assert "cut short" in only_detail(result, "bad_json")


def test_gzip_is_read_and_what_breaks_off_is_one_drop(put, load):
    rows = [{"instruction": f"{number} {hash(str(number))}", "output": "b"} for number in range(4000)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    assert len(load(put("a.jsonl.gz", packed)).conversations) == 4000
    assert len(load(put("b.jsonl", packed)).conversations) == 4000
    cut = load(put("cut.jsonl.gz", packed[: len(packed) // 2]))
    assert reasons(cut) == {"damaged_gzip": 1}
    assert 1000 < len(cut.conversations) < 3000
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    with pytest.raises(DataError, match="gzip file is damaged"):
        load(put("flipped.jsonl.gz", bytes(flipped)))


def test_a_damaged_gzip_array_keeps_the_rows_before(put, load):
    rows = [{"instruction": f"{number} {hash(str(number))}", "output": "b"} for number in range(4000)]
    packed = gzip.compress(json.dumps(rows).encode())
    cut = load(put("a.json.gz", packed[: len(packed) // 2]))
    assert reasons(cut) == {"damaged_gzip": 1}
    assert len(cut.conversations) > 1000
    assert any("damaged gzip" in note for note in cut.ledger.notes)


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("content", [[ROW, ROW], {"examples": [ROW, ROW]}, {"version": 1, "conversations": [ROW, ROW]}])
def test_arrays_and_wrapped_arrays_count_items_from_zero(put, load, content, indent):
    result = load(put("a.json", json.dumps(content, indent=indent)))
    assert result.texts == [HI, HI]
    assert str(result.conversations[1].address).endswith("a.json[1]")
    assert not result.ledger.notes


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "content",
    [
        ROW,
        {"messages": [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "hi"}]},
        {"conversations": [{"from": "human", "value": "Say hi"}, {"from": "gpt", "value": "hi"}]},
    ],
)
def test_a_single_object_is_one_row(put, load, content, indent):
    result = load(put("a.json", json.dumps(content, indent=indent)))
    assert result.texts == [HI]
    assert str(result.conversations[0].address).endswith("a.json:1")


def test_objects_one_after_another_are_rows(put, load):
    result = load(put("a.jsonl", json.dumps(ROW, indent=1) + "\n" + json.dumps(ROW, indent=1)))
    assert result.texts == [HI, HI]


def test_the_content_decides_not_the_name(put, load):
    lines = load(put("a.json", LINE + "\n" + LINE + "\n"))
    assert [conversation.address.number for conversation in lines.conversations] == [1, 2]
    assert any("holds JSON lines; read as such" in note for note in lines.ledger.notes)
    array = load(put("b.jsonl", json.dumps([ROW], indent=1)))
    assert array.texts == [HI]
    assert any("holds one JSON document; read as such" in note for note in array.ledger.notes)
    assert load(put("c.txt", LINE + "\n" + LINE)).texts == [HI, HI]
    assert load(put("d.csv", json.dumps([ROW], indent=1))).texts == [HI]
    assert load(put("e.data", LINE + "\n" + LINE)).texts == [HI, HI]


def test_json_lines_named_json_are_found_behind_a_broken_or_very_long_first_line(put, load):
    broken = load(put("a.json", LINE[:-4] + "\n" + LINE + "\n" + LINE))
    assert broken.texts == [HI, HI]
    long_row = json.dumps({"instruction": "x" * 200_000, "output": "hi"})
    assert len(load(put("b.json", long_row + "\n" + LINE)).conversations) == 2
    assert len(load(put("c.json", long_row)).conversations) == 1


def test_a_damaged_item_of_a_pretty_array_costs_itself(put, load):
    text = json.dumps([ROW, ROW, ROW], indent=2).replace('"output": "hi"', '"output": hi', 1)
    result = load(put("a.json", text))
    assert result.texts == [HI, HI]
    assert [conversation.address.number for conversation in result.conversations] == [1, 2]
    assert "line 4" in only_detail(result, "bad_json")


def test_a_cut_array_keeps_the_rows_before_and_says_so(put, load):
    result = load(put("a.json", json.dumps([ROW, ROW, ROW])[:-10]))
    assert result.texts == [HI, HI]
    assert "cut short" in only_detail(result, "bad_json")
    assert any("nothing after item 2" in note for note in result.ledger.notes)


def test_nothing_after_an_array_is_lost_in_silence(put, load):
    text = json.dumps([ROW, ROW])
    more = load(put("a.json", text + "\n" + json.dumps([ROW], indent=1)))
    assert [conversation.address.number for conversation in more.conversations] == [0, 1, 2]
    words = load(put("b.json", text + "\nand so on"))
    assert words.texts == [HI, HI]
    assert "found 'and so on'" in only_detail(words, "bad_json")


def test_rows_of_a_document_are_checked_for_bad_text(put, load):
    bad_byte = json.dumps([ROW, {"instruction": "XX", "output": "b"}]).encode().replace(b"XX", b"\xff")
    assert reasons(load(put("a.json", bad_byte))) == {"invalid_utf8": 1}
    wrapped = json.dumps({"rows": [ROW, {"instruction": "XX", "output": "b"}]}).encode().replace(b"XX", b"\xff")
    assert reasons(load(put("b.json", wrapped))) == {"invalid_utf8": 1}
    half = json.dumps([ROW, {"instruction": "\ud800", "output": "b"}, "x"])
    assert reasons(load(put("c.json", half))) == {"lone_surrogate": 1, "not_an_object": 1}


def test_a_file_without_a_readable_row_is_an_error(put, load):
    with pytest.raises(DataError, match="No row of the file can be read") as caught:
        load(put("a.jsonl", "hello\nworld\n"))
    assert "bad_json" in str(caught.value)
    with pytest.raises(DataError, match="holds no rows"):
        load(put("b.json", "[]"))


class Watched(str):
    """A text that counts the characters that slices and counts go over."""

    __slots__ = ("characters",)
    characters: int

    def __getitem__(self, place):
        part = super().__getitem__(place)
        self.characters += len(part)
        return part

    def count(self, what, start=0, end=None):
        end = len(self) if end is None else end
        self.characters += max(end - start, 0)
        return super().count(what, start, end)


class Whole(bytes):
    """A stream, and its bytes, which decode to a watched text."""

    damage = None

    def read_all(self):
        return self

    def decode(self, *how):
        self.text = Watched(super().decode(*how))
        self.text.characters = 0
        return self.text


def split(text):
    """The rows of a document, and how many of its characters were gone over for each that it has."""
    whole = Whole(text.encode())
    rows = list(json_document(whole, "a.json", is_row=lambda row: True, note=print))
    return rows, whole.text.characters / len(text)


@pytest.mark.parametrize("between", ["", " ", "\n"])
def test_objects_that_follow_one_another_are_split_in_linear_time(between):
    row = json.dumps({"prompt": "q", "completion": "\\n" * 40}) + between
    rows, times = split(row * 5_000)
    assert [row.address.number for row in rows[:2]] == [1, 2 if between == "\n" else 1]
    assert len(rows) == 5_000
    assert 1 <= times < 4


def test_items_of_arrays_that_follow_one_another_are_split_in_linear_time():
    row = json.dumps({"prompt": "q", "completion": "a" * 60})
    rows, times = split(f"[{row}]" * 5_000)
    assert [row.address.number for row in rows] == list(range(5_000))
    assert 1 <= times < 4
