"""Short names of general sets: all capabilities, one, a file of that name, and the nearest name for a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.builders.dataset import prepare
from tutelage.config import from_mapping
from tutelage.errors import SourceNotFoundError
from tutelage.evaluate.general import read_general
from tutelage.evaluate.packaged_sets import capabilities, packaged_files


def test_the_short_name_is_all_capabilities_and_each_has_its_own() -> None:
    names = [f"probes/{capability}" for capability in capabilities()]

    assert [file.display_name for file in packaged_files("probes")] == names
    assert len(names) >= 8
    assert [file for name in names for file in packaged_files(name)] == list(packaged_files("probes"))
    assert all(file.path.is_file() for file in packaged_files("probes"))


def test_other_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "mine.jsonl").write_text("{}", encoding="utf-8")

    for name in ("datasets/general.jsonl", "./probes", "probes.jsonl", "my/probes", "probes/mine.jsonl", ""):
        assert packaged_files(name) == ()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("probes/arithmetics", "probes/arithmetic"),
        ("probes/Code", "probes/code"),
        ("probes/facts.jsonl", "probes/facts"),
        ("probes/extracting", "probes/extraction"),
    ],
)
def test_a_wrong_capability_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        packaged_files(name)

    assert caught.value.found == name
    assert caught.value.fix == f"did you mean '{nearest}'?"


@pytest.mark.parametrize("name", ["probes/", "probes/zzz", "probes/../general"])
def test_a_capability_near_none_gets_the_list(name: str) -> None:
    with pytest.raises(SourceNotFoundError, match="no capability") as caught:
        packaged_files(name)

    assert "arithmetic, code" in str(caught.value.expected)


def test_a_run_takes_its_probes_by_name(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hello", "completion": "Good day."}\n' * 2, encoding="utf-8")
    settings = from_mapping(
        {
            "model": {"name": "tiny"},
            "data": {"train": [str(rows)], "validation_ratio": 0.0},
            "evaluate": {"general": ["probes/facts", "probes/code"]},
        },
        where="probes",
    )

    prepared = prepare(settings, tiny_tokenizer_folder)

    items = prepared.general
    assert [item.topic for item in items] == ["facts"] * 51 + ["code"] * (len(items) - 51)
    assert str(items[0].address) == "probes/facts:1"
    assert items[0].name == "facts-001"
    assert {"probes/facts", "probes/code"} <= set(prepared.data_sha256)


def test_an_item_without_id_is_named_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(
        '{"prompt": "Hi", "checks": [{"kind": "plain_text"}]}\n'
        '{"id": 7, "prompt": "Hi", "checks": [{"kind": "plain_text"}], "reference": "Hello"}\n',
        encoding="utf-8",
    )

    first, second = read_general(str(path))

    assert (first.name, first.reference) == (f"{path}:1", None)
    assert (second.name, second.reference) == ("7", "Hello")
