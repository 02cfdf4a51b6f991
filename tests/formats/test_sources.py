from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tutelage.errors import DataError, SourceNotFoundError
from tutelage.formats import sources as room
from tutelage.formats.sources import find_files
from tutelage.system import hub


def row(text: str) -> str:
    return json.dumps({"prompt": text, "completion": "a"}) + "\n"


def prompts(result):
    return [conversation.messages[0].content for conversation in result.conversations]


def test_folders_and_globs_are_sorted(put, load, tmp_path):
    for name in ("data/b.jsonl", "data/a.jsonl", "data/deep/c.jsonl", "data/.hidden/x.jsonl"):
        put(name, row(name))
    for name in ("data/README.txt", "data/notes.md", "data/dataset_infos.json"):
        put(name, "not a row")
    assert prompts(load(tmp_path / "data")) == ["data/a.jsonl", "data/b.jsonl", "data/deep/c.jsonl"]
    assert prompts(load(tmp_path / "data" / "*.jsonl")) == ["data/a.jsonl", "data/b.jsonl"]
    assert prompts(load(tmp_path / "data/b.jsonl", tmp_path / "data/a.jsonl")) == ["data/b.jsonl", "data/a.jsonl"]


def test_a_missing_file_names_the_nearest(put, load, tmp_path):
    put("train.jsonl", row("x"))
    with pytest.raises(SourceNotFoundError) as caught:
        load(tmp_path / "trian.jsonl")
    assert f"write {tmp_path / 'train.jsonl'}" in str(caught.value)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data files"):
        load(tmp_path / "empty")
    with pytest.raises(SourceNotFoundError, match="No data was named"):
        load()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b" \n\n", "holds no rows"),
        ("a.csv", b"prompt,completion\n", "holds no rows"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", gzip.compress('{"prompt": "a"}'.encode("utf-16"), mtime=0), "UTF-16"),
        ("a.jsonl", b"PK\x03\x04rest of the archive", "zip archive"),
        ("a.json", bytes(range(256)) * 4, "binary"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00broken", "damaged gzip"),
        ("a.weird", b"what is this", "Cannot tell"),
        ("a.parquet", b"what is this", "Cannot tell"),
    ],
)
def test_files_that_cannot_be_used(put, load, name, content, words):
    with pytest.raises(DataError) as caught:
        load(put(name, content))
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_a_nul_in_a_text_is_content(put, load):
    assert prompts(load(put("a.csv", "prompt,completion\na\0b,a long enough line of text\n"))) == ["a\0b"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Serves `tmp_path/hub` as the files of any data set; `asked` records what was asked for."""
    asked: list[tuple[str, str | None]] = []
    folder = tmp_path / "hub"
    folder.mkdir()

    def snapshot(name, *, kind, patterns, revision=None):
        assert kind == "dataset"
        assert "*.jsonl.gz" in patterns
        asked.append((name, revision))
        if name == "no/where":
            raise SourceNotFoundError("There is no dataset 'no/where' on the hub", where=name)
        return folder / "converted" if revision else folder

    monkeypatch.setattr("tutelage.system.hub.snapshot", snapshot)
    return lambda: asked


def test_a_hub_data_set_gives_its_training_split(put, load, repository):
    put("hub/data/train-00000-of-00002.jsonl", row("t0"))
    put("hub/data/train-00001-of-00002.jsonl", row("t1"))
    put("hub/data/test-00000-of-00001.jsonl", row("test"))
    put("hub/dataset_infos.json", "{}")
    result = load("owner/name")
    assert prompts(result) == ["t0", "t1"]
    assert str(result.conversations[1].address) == "owner/name/data/train-00001-of-00002.jsonl:1"
    assert prompts(load("owner/name:test")) == ["test"]
    assert repository() == [("owner/name", None)] * 2
    with pytest.raises(SourceNotFoundError, match="no files for 'dev'") as caught:
        load("owner/name:dev")
    assert "test-00000" in str(caught.value)


def test_a_hub_data_set_without_split_names_is_read_whole(put, load, repository):
    put("hub/part_a.jsonl", row("a"))
    put("hub/part_b.jsonl", row("b"))
    assert prompts(load("owner/name")) == ["a", "b"]


def test_a_hub_data_set_of_several_parts_asks_which(put, load, repository):
    put("hub/main/train.jsonl", row("main"))
    put("hub/socratic/train.jsonl", row("socratic"))
    with pytest.raises(DataError, match="several parts") as caught:
        load("owner/name")
    assert "owner/name:main/train" in str(caught.value)
    assert prompts(load("owner/name:socratic/train")) == ["socratic"]


def test_copies_in_other_forms_are_read_once(put, load, repository):
    put("hub/train.csv", "prompt,completion\nx,y\n")
    put("hub/train.jsonl", row("x"))
    result = load("owner/name")
    assert prompts(result) == ["x"]
    assert any(".jsonl files were read" in note for note in result.ledger.notes)


def test_the_hubs_own_parquet_copy_stands_in(put, load, repository):
    put("hub/script.py", "")
    folder = put("hub/converted/default/train/0000.jsonl", row("converted")).parents[3]
    (folder / "converted").rename(folder.parent / "kept")
    (folder / "converted").symlink_to(folder.parent / "kept")
    assert prompts(load("owner/name")) == ["converted"]
    assert repository()[-1] == ("owner/name", room.CONVERTED_REVISION)


def test_a_path_wins_over_a_hub_id(put, load, repository, tmp_path, monkeypatch):
    put("owner/name", row("local"))
    monkeypatch.chdir(tmp_path)
    assert prompts(load("owner/name")) == ["local"]
    assert repository() == []
    with pytest.raises(SourceNotFoundError, match="on the hub"):
        load("no/where")
    with pytest.raises(SourceNotFoundError, match="no such file"):
        load("nowhere")


def test_hub_names_are_told_from_paths():
    assert hub.looks_like_repository("owner/name")
    assert not hub.looks_like_repository("./owner/name")
    notes: list[str] = []
    with pytest.raises(SourceNotFoundError):
        find_files([str(Path("/nowhere/at/all.jsonl"))], notes.append)


def test_d10_a_file_name_that_is_no_utf8_is_shown_so_that_a_file_can_hold_it(tmp_path, load):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(name, "wb") as stream:
        stream.write(row("x").encode() + b"broken\n")
    for source in (tmp_path, os.fsdecode(name), tmp_path / "*.jsonl"):
        result = load(source)
        assert prompts(result) == ["x"]
        shown = str(result.conversations[0].address)
        assert shown == f"{tmp_path}/caf\\xe9.jsonl:1"
        assert shown.encode("utf-8")
    with pytest.raises(SourceNotFoundError) as caught:
        load(os.fsdecode(name[:-1]))
    assert str(caught.value).encode("utf-8")


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 5000, "a\0b", "*" + "x" * 300, "[" * 50])
def test_d11_a_name_that_no_file_can_have(load, name):
    with pytest.raises((SourceNotFoundError, DataError)) as caught:
        load(name)
    assert len(str(caught.value)) < 1000


def test_d12_a_dangling_link_says_so(tmp_path, load, put):
    put("data/a.jsonl", row("x"))
    (tmp_path / "data/b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(SourceNotFoundError, match="link leads to nothing") as caught:
        load(tmp_path / "data/b.jsonl")
    assert "gone.jsonl" in str(caught.value)
    for source in (tmp_path / "data", tmp_path / "data/*.jsonl"):
        result = load(source)
        assert prompts(result) == ["x"]
        assert result.ledger.notes == [f"{tmp_path}/data/b.jsonl is passed over: a link to nothing"]


def test_d12_what_cannot_be_opened_in_a_folder_is_named(tmp_path, load, put, monkeypatch):
    put("data/a.jsonl", row("x"))
    put("data/closed/b.jsonl", row("y"))
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    result = load(tmp_path / "data")
    assert prompts(result) == ["x"]
    assert result.ledger.notes == [f"{tmp_path}/data/closed is passed over: Permission denied"]
    with pytest.raises(DataError, match="cannot be opened"):
        load(tmp_path / "data/closed")


def test_d12_links_to_folders_and_pipes_are_named(tmp_path, load, put):
    put("data/a.jsonl", row("x"))
    put("more/b.jsonl", row("y"))
    (tmp_path / "data/more").symlink_to(tmp_path / "more")
    os.mkfifo(tmp_path / "data/c.jsonl")
    notes = load(tmp_path / "data").ledger.notes
    assert [note.split(" is passed over: ")[1].split(";")[0] for note in notes] == ["a link to a folder", "no file"]
    with pytest.raises(DataError, match="read twice"):
        load(tmp_path / "data/c.jsonl")


def test_b23_folders_with_brackets_are_taken_by_name(tmp_path, load, put):
    for name in ("a[/x].jsonl", "data[bold]/y.jsonl", "b[/z.jsonl"):
        put(name, row(name))
    assert prompts(load(tmp_path / "a[/x].jsonl")) == ["a[/x].jsonl"]
    assert prompts(load(tmp_path / "data[bold]/*.jsonl")) == ["data[bold]/y.jsonl"]
    assert prompts(load(tmp_path / "data[bold]")) == ["data[bold]/y.jsonl"]
    assert prompts(load(tmp_path / "b[" / "*.jsonl")) == ["b[/z.jsonl"]


CARD = """---
license: cc-by-4.0
configs:
- config_name: easy
  default: true
  data_files:
  - split: train
    path: data/easy-*
  - split: test
    path: data/held-*
- config_name: hard
  data_files:
    train: [data/hard.jsonl]
---
# About
"""


def test_a_card_says_which_files_are_of_which_split(put, load, repository):
    put("hub/README.md", CARD)
    for name in ("easy-0", "easy-1", "held-0", "hard"):
        put(f"hub/data/{name}.jsonl", row(name))
    result = load("owner/name")
    assert [text[0][1] for text in result.texts] == ["easy-0", "easy-1"]
    assert any("license cc-by-4.0" in note for note in result.ledger.notes)
    assert [text[0][1] for text in load("owner/name:test").texts] == ["held-0"]
    assert [text[0][1] for text in load("owner/name:hard/train").texts] == ["hard"]
    put("hub/README.md", CARD.replace("  default: true\n", ""))
    with pytest.raises(DataError, match="several parts") as caught:
        load("owner/name")
    assert "easy, hard" in str(caught.value)


def test_a_folder_with_a_card_gives_its_training_split(put, load):
    put("set/README.md", CARD)
    put("set/data/easy-0.jsonl", row("easy"))
    folder = put("set/data/held-0.jsonl", row("held")).parent.parent
    result = load(folder)
    assert [text[0][1] for text in result.texts] == ["easy"]
    assert any("1 others are not" in note for note in result.ledger.notes)
    for text in ("---\nconfigs: [oops\n---\n", "---\n- a\n---\n", "no head", "---\nconfigs: 3\nlicense: [mit]\n---\n"):
        put("set/README.md", text)
        assert len(load(folder).texts) == 2
