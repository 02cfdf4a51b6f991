"""What holds rows beside plain text: zstd, Arrow, saved data sets, objects around lists, archives."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.errors import DataError

ROWS = [{"prompt": f"q{number}", "completion": "a"} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SAID = [[("user", f"q{number}"), ("assistant", "a")] for number in range(3)]


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def arrow(rows, writer) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with writer(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue()


def put_saved(put, folder, rows):
    put(f"{folder}/data-00000-of-00001.arrow", arrow(rows, pa.ipc.new_stream))
    put(f"{folder}/cache-1a2b.arrow", arrow([{"prompt": "old", "completion": "old"}], pa.ipc.new_stream))
    put(f"{folder}/state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return put(f"{folder}/dataset_info.json", "{}").parent


@pytest.mark.parametrize("data", [zstd(LINES), zstd(LINES[:20]) + zstd(LINES[20:])])
def test_zstd_is_read_with_all_its_frames(put, load, data):
    result = load(put("a.jsonl.zst", data))
    assert result.texts == SAID
    assert not result.ledger.notes
    assert [conversation.address.number for conversation in result.conversations] == [1, 2, 3]


def test_damaged_zstd_is_refused_whole(put, load):
    with pytest.raises(DataError, match="zstd file is damaged"):
        load(put("a.jsonl.zst", zstd(LINES * 1000)[:-5]))


@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_files_and_streams_are_read(put, load, writer):
    result = load(put("a.arrow", arrow(ROWS, writer)))
    assert result.texts == SAID
    assert str(result.conversations[2].address).endswith("a.arrow:row 3")
    with pytest.raises(DataError, match="Arrow file cannot be read"):
        load(put("b.arrow", arrow(ROWS, writer)[:150]))


def test_arrows_null_filled_members_are_stripped(put, load):
    call = {"name": "f", "arguments": {"a": 1, "b": None}}
    turns = [
        {"role": "user", "content": "q", "tool_calls": None},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    result = load(put("a.arrow", arrow([{"messages": turns}], pa.ipc.new_stream)))
    assert result.conversations[0].messages[1].tool_calls[0].arguments == {"a": 1}


def test_of_a_saved_data_set_its_own_files_are_read_and_no_cache(put, load):
    assert load(put_saved(put, "saved", ROWS)).texts == SAID
    put("saved/state.json", json.dumps({"_data_files": [{"filename": "data-00001-of-00002.arrow"}]}))
    with pytest.raises(DataError, match="not whole"):
        load(put("saved/other.json", "{}").parent)


def test_of_saved_splits_train_is_read(put, load):
    put_saved(put, "all/train", ROWS)
    put_saved(put, "all/test", ROWS[:1])
    folder = put("all/dataset_dict.json", json.dumps({"splits": ["train", "test"]})).parent
    result = load(folder)
    assert result.texts == SAID
    assert any("train is read, and not test" in note for note in result.ledger.notes)
    put("all/dataset_dict.json", json.dumps({"splits": ["a", "b"]}))
    with pytest.raises(DataError, match="several splits"):
        load(folder)


def test_of_a_folder_of_data_designer_its_batches_are_read_and_not_what_lies_beside(put, load):
    table = pa.Table.from_pylist(ROWS)
    folder = put("made/builder_config.json", json.dumps({"data_designer": {}, "library_version": "0.9.7"})).parent
    put("made/metadata.json", json.dumps({"actual_num_records": 3}))
    for name in ("parquet-files/batch_00000.parquet", "processors-files/chat/batch_00000.parquet"):
        (folder / name).parent.mkdir(parents=True)
        pq.write_table(table, folder / name)
    assert load(folder).texts == SAID


@pytest.mark.parametrize("key", ["data", "rows", "examples", "train"])
def test_an_object_around_rows_may_hold_other_lists(put, load, key):
    document = {"version": 1, "authors": [{"name": "ada"}], key: ROWS, "test": ROWS[:1]}
    result = load(put("a.json", json.dumps(document)))
    assert result.texts == SAID
    assert any(f"rows are those of `{key}`; `authors`, `test` are not read" in note for note in result.ledger.notes)


def test_objects_side_by_side_on_a_line_are_rows(put, load):
    line = json.dumps(ROWS[0]) + json.dumps(ROWS[1]) + "\n" + json.dumps(ROWS[2]) + "\n"
    assert load(put("a.jsonl", line)).texts == SAID
    result = load(put("b.jsonl", json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[0]) + "{oops\n"))
    assert dict(result.ledger.dropped) == {"bad_json": 1}


def test_archives_and_databases_are_refused_with_the_way_out(put, load, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(put("a.jsonl", LINES), "a.jsonl")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("a.jsonl", LINES)
    for name, data, fix in (
        ("a.tar", archive.getvalue(), "tar -xf"),
        ("a.zip", zipped.getvalue(), "unzip"),
        ("a.db", b"SQLite format 3\0" + bytes(100), "sqlite3 -json"),
        ("b.jsonl", "é".encode("utf-16"), "iconv -f UTF-16"),
        ("c.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ):
        with pytest.raises(DataError) as caught:
            load(put(name, data))
        assert fix in str(caught.value)
