from __future__ import annotations

import csv
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.errors import DataError
from tutelage.formats import describe


def pairs(result):
    return [
        (conversation.messages[0].content, conversation.messages[-1].content) for conversation in result.conversations
    ]


def lines_dropped(result, reason):
    return [drop.address.number for drop in result.ledger.drop_samples.get(reason, [])]


def test_csv_with_quotes_commas_and_many_lines_in_a_field(put, load):
    rows = [["a, b", 'say "x"'], ["one\ntwo\r\n\nthree", "four\n"], ["\u2028 café", "🙂"]]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["prompt", "completion"], *rows])
    result = load(put("a.csv", "\ufeff" + buffer.getvalue()))
    assert pairs(result) == [tuple(row) for row in rows]
    assert [conversation.address.number for conversation in result.conversations] == [2, 3, 8]


@pytest.mark.parametrize(
    "bad",
    [
        '"open,b',
        'a,"open',
        'a "bare" quote,b',
        'a,"closed" and more',
        'a,5" pipe',
        "one field",
        "a,b,c",
        '"a\nb","c","d"',
    ],
)
def test_a_broken_line_of_csv_swallows_nothing(put, load, bad):
    result = load(put("a.csv", f'prompt,completion\n{bad}\nx,y\n"q\nq","r"\nlast,"one"\n'))
    assert pairs(result) == [("x", "y"), ("q\nq", "r"), ("last", "one")]
    assert lines_dropped(result, "bad_csv") == [2]


def test_a_quote_never_closed_costs_its_line_only(put, load):
    body = "".join(f"p{number},c{number}\n" for number in range(6000))
    result = load(put("a.csv", 'prompt,completion\n"never,closed\n' + body))
    assert len(result.conversations) == 6000
    assert "never closed" in result.ledger.drop_samples["bad_csv"][0].detail


def test_many_broken_lines_take_no_quadratic_time(put, load):
    result = load(put("a.csv", "prompt,completion\nx,y\n" + 'a,"open\n' * 3000))
    assert pairs(result) == [("x", "y")]
    assert result.ledger.dropped["bad_csv"] == 3000


def test_invalid_bytes_drop_the_record(put, load):
    result = load(put("a.csv", b"prompt,completion\ncaf\xe9,b\nx,y\n"))
    assert pairs(result) == [("x", "y")]
    assert lines_dropped(result, "invalid_utf8") == [2]


def test_tsv_takes_quotes_as_letters(put, load):
    result = load(put("a.tsv", 'prompt\tcompletion\n"a\tb"\r\nsay "x"\ty,z\nonly one\n'))
    assert pairs(result) == [('"a', 'b"'), ('say "x"', "y,z")]
    assert lines_dropped(result, "bad_csv") == [4]


def test_no_header_names_columns_by_place(put, load):
    path = put("a.tsv", "How many are there? 3 + 4.\t7\tIt is 7.\nAnd 2 + 2?\t4\tIt is 4.\n")
    result = load(path, columns={"prompt": "0", "response": "2"})
    assert pairs(result) == [("How many are there? 3 + 4.", "It is 7."), ("And 2 + 2?", "It is 4.")]
    assert any("no header" in note for note in result.ledger.notes)
    with pytest.raises(DataError, match="No row fits a known shape") as caught:
        load(path)
    assert "0 (2), 1 (2), 2 (2)" in str(caught.value)
    assert "--columns" in str(caught.value)


def test_headers(put, load):
    pandas_index = load(put("a.csv", ",instruction,output\n0,a,b\n"))
    assert pairs(pandas_index) == [("a", "b")]
    mapped = load(
        put("b.csv", "The question (en),My answer!\na,b\n"),
        columns={"prompt": "The question (en)", "response": "My answer!"},
    )
    assert pairs(mapped) == [("a", "b")]
    by_index = load(put("c.csv", "question,answer\na,b\n"), columns={"prompt": "1", "response": "0"})
    assert pairs(by_index) == [("b", "a")]
    short_cells = load(put("d.csv", "yes,no\nleft,right\n"), columns={"prompt": "0", "response": "1"})
    assert pairs(short_cells) == [("yes", "no"), ("left", "right")]


def test_separators_are_found_by_looking(put, load):
    tabs = load(put("a.csv", "prompt\tcompletion\na,b\tc\n"))
    assert pairs(tabs) == [("a,b", "c")]
    assert any("tab-separated" in note for note in tabs.ledger.notes)
    assert pairs(load(put("b.tsv", 'prompt,completion\n"a,b",c\n'))) == [("a,b", "c")]


def test_gzip_tables(put, load):
    assert pairs(load(put("a.csv.gz", gzip.compress(b"prompt,completion\na,b\n")))) == [("a", "b")]


def test_text_is_read_by_paragraphs(put, load):
    result = load(put("a.txt", "First line\nsecond  line \n\n \nNext one.\u2028still\n"))
    assert [conversation.messages[0].content for conversation in result.conversations] == [
        "First line\nsecond  line ",
        "Next one.\u2028still",
    ]
    assert [conversation.address.number for conversation in result.conversations] == [1, 5]
    assert all(conversation.is_text for conversation in result.conversations)
    assert any("paragraph" in note for note in result.ledger.notes)


def test_text_with_a_bad_byte(put, load):
    result = load(put("a.txt", b"good\n\nb\xe4d\nline\n\ngood again"))
    assert len(result.conversations) == 2
    assert lines_dropped(result, "invalid_utf8") == [3]


def write_parquet(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_parquet_rows_over_several_batches(tmp_path, load):
    rows = [{"prompt": f"p{number}\u2028", "completion": f"c{number}"} for number in range(2500)]
    result = load(write_parquet(tmp_path / "a.parquet", rows, row_group_size=700))
    assert pairs(result) == [(row["prompt"], row["completion"]) for row in rows]
    assert str(result.conversations[-1].address).endswith("a.parquet:row 2500")


def test_parquet_nulls_inside_structs_are_absent_keys(tmp_path, load):
    def row(arguments):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return {
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
            ]
        }

    result = load(write_parquet(tmp_path / "a.parquet", [row({"x": 1}), row({"y": "z"})]))
    calls = [conversation.messages[1].tool_calls[0].arguments for conversation in result.conversations]
    assert calls == [{"x": 1}, {"y": "z"}]
    assert any("read as absent" in note for note in result.ledger.notes)
    assert len(describe([str(tmp_path / "a.parquet")]).files[0].notes) == 1


def test_parquet_null_and_wrong_cells(tmp_path, load):
    rows = [{"prompt": "a", "completion": None}, {"prompt": "a", "completion": "b"}]
    assert dict(load(write_parquet(tmp_path / "a.parquet", rows)).ledger.dropped) == {"missing_field": 1}
    numbers = [{"prompt": "a", "completion": 1.5}]
    assert dict(load(write_parquet(tmp_path / "b.parquet", numbers)).ledger.dropped) == {"wrong_type": 1}


def test_parquet_with_bytes_that_are_not_text(tmp_path, load):
    column = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    table = pa.table({"prompt": pa.array(["p", "q"]), "completion": column})
    pq.write_table(table, tmp_path / "a.parquet")
    result = load(tmp_path / "a.parquet")
    assert pairs(result) == [("p", "a")]
    assert "0xff" in result.ledger.drop_samples["invalid_utf8"][0].detail


def test_damaged_parquet_is_an_error(tmp_path, load):
    whole = write_parquet(tmp_path / "a.parquet", [{"prompt": "a", "completion": "b"}]).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="Parquet file cannot be read"):
        load(tmp_path / "cut.parquet")


def test_d9_a_header_that_is_no_utf8_is_refused(put, load):
    turns = '"[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]"'
    for columns in (None, {"messages": "conv"}):
        with pytest.raises(DataError, match="columns are not UTF-8") as caught:
            load(put("a.csv", f"conv,caf\xe9\n{turns},x\n".encode("latin-1")), columns=columns)
        assert "iconv" in str(caught.value)
        str(caught.value).encode("utf-8")
    # A first row of data is a row like any other.
    rows = load(put("b.tsv", b"What is a caf\xe9?\tb c\nq ?\ta b\n"), columns={"prompt": "0", "response": "1"})
    assert pairs(rows) == [("q ?", "a b")]
    assert lines_dropped(rows, "invalid_utf8") == [1]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_r23_line_ends_of_other_systems_are_no_content(put, load, end):
    text = "First line\nsecond line\n\nNext page\nof it\n\n\nLast"
    path = put("page.txt", text.replace("\n", end))
    result, plain = load(path), load(put("plain.txt", text))
    assert [conversation.messages for conversation in result.conversations] == [
        conversation.messages for conversation in plain.conversations
    ]
    assert [conversation.address.number for conversation in result.conversations] == [
        conversation.address.number for conversation in plain.conversations
    ]
    assert sum("carriage return" in note for note in result.ledger.notes) == 1
    assert not any("carriage return" in note for note in plain.ledger.notes)


def test_r23_carriage_returns_of_gzip_and_marked_text(put, load):
    data = gzip.compress("\ufeffone\r\ntwo\r\n\r\nthree".encode())
    assert [conversation.messages[0].content for conversation in load(put("a.txt.gz", data)).conversations] == [
        "one\ntwo",
        "three",
    ]
