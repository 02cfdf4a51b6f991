"""`[curate]` of a recipe: what is trained on is what its steps let through, and the run's folder has the books."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_endpoint import fake_endpoint
from tests.support.fake_endpoint import said as said_by
from tutelage import config
from tutelage.builders.dataset import Prepared, prepare
from tutelage.errors import ConfigError, DataError, EndpointError
from tutelage.report.html.page import render
from tutelage.runs.reading import load
from tutelage.system.folder_use import delete_unused, using

ROWS = [{"prompt": f"Question {number % 3}?", "completion": f"Answer {number % 3}."} for number in range(6)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepared(folder: Path, tmp_path: Path, *, said: list[str] | None = None, **sections: Any) -> Prepared:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    values = {"model": {"name": "tiny"}, **sections}
    values["data"] = {"train": [str(data)], "workers": 1} | sections.get("data", {})
    run_folder = tmp_path / "run"
    run_folder.mkdir(exist_ok=True)
    settings = config.from_mapping(values, [], where="a test")
    log = [].append if said is None else said.append
    return prepare(settings, folder, cache=None, ledger_path=run_folder / "ledger.jsonl", log=log)


def test_a_recipe_without_the_table_trains_on_all_rows(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    assert len(prepared(tiny_tokenizer_folder, tmp_path).train) == 6
    assert not (tmp_path / "run" / "curation.json").exists()


def test_the_rows_that_went_through_are_trained_on_and_the_books_are_kept(
    tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    made = prepared(tiny_tokenizer_folder, tmp_path, said=said, curate={"steps": ["exact_duplicates"]})
    assert len(made.train) == 3
    books = json.loads((tmp_path / "run" / "curation.json").read_text(encoding="utf-8"))
    assert (books["in"], books["kept"], books["merged"]) == (6, 3, 3)
    assert any(line.startswith("Curated: 6 rows read, 3 kept") for line in said)
    page = tmp_path / "run" / "curation.html"
    assert "3 of 6 rows are kept" in page.read_text(encoding="utf-8").replace("\u00a0", " ")
    assert load(tmp_path / "run").curation_page == page.name
    assert f'<a href="{page.name}">' in render(load(tmp_path / "run"))


def test_a_page_of_another_is_not_written_over(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curation.html").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="no page of ours"):
        prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": ["exact_duplicates"]})


def test_the_same_rows_are_curated_once(tiny_tokenizer_folder: Path, tmp_path: Path, cache: Path) -> None:
    first = prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": ["exact_duplicates"]})
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}
    again = prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": ["exact_duplicates"]})
    assert files == {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}
    assert again.examples_sha256 == first.examples_sha256


def test_nothing_left_is_an_error_that_names_what_went(
    tiny_tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.curation_steps import DropShort

    monkeypatch.setattr("tutelage.curate.pipeline.build_steps", lambda *_given: [DropShort(letters=1000)])
    with pytest.raises(DataError, match="left no row") as error:
        prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": []})
    assert "dropped 6 too_short" in str(error.value.found)


def test_training_stops_where_the_judge_did_not_get_through_unless_it_is_said(
    tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    def judged(url: str, **table: Any) -> Prepared:
        judge = {"url": url, "model": "m", "parallel": 1, "most_requests": 1, **table}
        steps = ["exact_duplicates", "judge"]
        return prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": steps, "judge": judge})

    with fake_endpoint(lambda _body, _place: said_by('{"quality": 4, "complexity": 2}')) as fake:
        with pytest.raises(EndpointError, match="not all judged") as error:
            judged(fake.url)
        assert "the budget is spent: curate.judge.most_requests 1" in str(error.value.found)
        assert "give the same command again" in str(error.value.fix)
        assert len(judged(fake.url, unfinished="scored").train) == 2, "one answer was kept, one came now"
        assert len(judged(fake.url, unfinished="all").train) == 3
        assert len(judged(fake.url).train) == 3, "all is answered"
    assert len(fake.requests) == 3


def test_rows_of_a_validation_set_are_taken_out_of_those_trained_on(
    tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "validation.jsonl"
    held_out.write_text(json.dumps(ROWS[1] | {"prompt": "Question 1, if you please, and be so kind as to say it?"}))
    data = {"validation": [str(held_out)]}
    books = tmp_path / "run" / "curation.json"
    prepared(tiny_tokenizer_folder, tmp_path, curate={"near_duplicates": {"similarity": 0.9}}, data=data)
    steps = [step["step"] for step in json.loads(books.read_text(encoding="utf-8"))["steps"]]
    assert steps.index("decontaminate") == steps.index("exact_duplicates") + 1
    prepared(tiny_tokenizer_folder, tmp_path, curate={"steps": ["exact_duplicates"]}, data=data)
    assert "decontaminate" not in books.read_text(encoding="utf-8")


def test_a_model_may_choose_the_rows_of_a_recipe(tiny_model_folder: Path, tmp_path: Path) -> None:
    table = {
        "steps": ["exact_duplicates", "model_scores", "select"],
        "model_scores": {"model": str(tiny_model_folder), "precision": "fp32"},
        "select": {"keep": 2, "method": "score", "score": "model_scores.reply_loss"},
    }
    assert len(prepared(tiny_model_folder, tmp_path, curate=table).train) == 2
    books = json.loads((tmp_path / "run" / "curation.json").read_text(encoding="utf-8"))
    assert [step["step"] for step in books["steps"]][-2:] == ["model_scores", "select"]


def test_the_table_is_in_the_runs_settings_only_where_the_recipe_has_it() -> None:
    plain = config.from_mapping({"model": {"name": "tiny"}, "data": {"train": ["a"]}}, where="a test")
    assert "[curate" not in config.dump(plain)
    curated = config.from_mapping(
        {"model": {"name": "tiny"}, "data": {"train": ["a"]}, "curate": {"steps": ["normalize"]}}, where="a test"
    )
    assert 'steps = [\n    "normalize",\n]' in config.dump(curated)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_weights_of_sources_go_on_to_mean_what_they_say(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    """The curated rows are one file; what is visited more often are those of the source, less what went of it."""
    small = write_rows(
        tmp_path / "small.jsonl", [{"prompt": f"Small {n % 2}?", "completion": "Yes."} for n in range(4)]
    )
    large = write_rows(tmp_path / "large.jsonl", [{"prompt": f"Large {n}?", "completion": "No."} for n in range(5)])
    made = prepared(
        tiny_tokenizer_folder, tmp_path, data={"train": [small, large], "weights": {small: 3.0}},
        curate={"steps": ["exact_duplicates"]},
    )  # fmt: skip
    assert [(len(source.indices), float(source.weight)) for source in made.sources] == [(2, 3.0), (5, 1.0)]
    assert len(made.train) == 7


def test_rows_by_source_in_the_cache_are_bounded(tiny_tokenizer_folder: Path, tmp_path: Path, cache: Path) -> None:
    """Of one curation two stay, however often its rows change; one whose curation was deleted goes."""
    orphan = cache / "curated" / f"{'0' * 16}-{'1' * 16}-by-source"
    orphan.mkdir(parents=True)
    kept = []
    for changes in range(4):
        rows = [{"prompt": f"Question {n}?", "completion": f"Answer {changes}."} for n in range(3)]
        first, second = (write_rows(tmp_path / f"{name}.jsonl", rows[:place]) for name, place in (("a", 2), ("b", 3)))
        made = prepared(
            tiny_tokenizer_folder, tmp_path, data={"train": [first, second], "weights": {second: 3.0}},
            curate={"steps": ["normalize"]},
        )  # fmt: skip
        assert len(made.train) == 5
        kept.append(set((cache / "curated").glob("*-by-source")))
    assert [len(folders) for folders in kept] == [1, 2, 2, 2]
    assert len(kept[2] & kept[3]) == 1, "the one before stays"
    assert len(set.union(*kept)) == 4
    assert not orphan.exists()


def test_rows_by_source_stay_while_they_are_read_and_are_made_again_as_they_were(
    tiny_tokenizer_folder: Path, tmp_path: Path, cache: Path
) -> None:
    """Two later runs do not take them from one that is reading; when they are gone, a resume has the same bytes."""

    def run(answer: str) -> Prepared:
        rows = [{"prompt": f"Question {n}?", "completion": f"Answer {answer}."} for n in range(3)]
        first, second = (write_rows(tmp_path / f"{name}.jsonl", rows[:place]) for name, place in (("a", 2), ("b", 3)))
        return prepared(
            tiny_tokenizer_folder, tmp_path, data={"train": [first, second], "weights": {second: 3.0}},
            curate={"steps": ["normalize"]},
        )  # fmt: skip

    earlier = run("one")
    (folder,) = (cache / "curated").glob("*-by-source")
    written = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert set(written) == {"00-a.jsonl", "01-b.jsonl"}
    with using(folder):
        for answer in ("two", "three", "four"):
            run(answer)
        assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == written
    run("five")
    assert not folder.exists()

    again = run("one")

    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == written
    assert (again.data_sha256, again.examples_sha256) == (earlier.data_sha256, earlier.examples_sha256)


def test_rows_by_source_are_held_until_all_are_read(
    tiny_tokenizer_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[bool] = []
    monkeypatch.setattr(
        "tutelage.builders.dataset.weighted_sources",
        lambda *_given, **_named: deleted.extend(map(delete_unused, (cache / "curated").glob("*-by-source"))) or (),
    )
    first, second = write_rows(tmp_path / "a.jsonl", ROWS[:1]), write_rows(tmp_path / "b.jsonl", ROWS[1:])

    prepared(
        tiny_tokenizer_folder, tmp_path, data={"train": [first, second], "weights": {second: 3.0}},
        curate={"steps": ["normalize"]},
    )  # fmt: skip

    assert deleted == [False]


def test_a_weight_of_a_source_that_curation_emptied(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    first = write_rows(tmp_path / "first.jsonl", ROWS[:3])
    second = write_rows(tmp_path / "second.jsonl", ROWS[:3])
    with pytest.raises(DataError, match="of which curation left nothing") as error:
        prepared(
            tiny_tokenizer_folder, tmp_path, data={"train": [first, second], "weights": {second: 3.0}},
            curate={"steps": ["exact_duplicates"]},
        )  # fmt: skip
    assert error.value.where == second


def test_rows_split_apart_are_what_held_out_loss_is_measured_on(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "many.jsonl", [{"prompt": f"Question {n}?", "completion": "No."} for n in range(20)])
    said: list[str] = []
    made = prepared(
        tiny_tokenizer_folder, tmp_path, said=said, data={"train": [data]}, curate={"steps": ["split"]},
        train={"early_stopping_patience": 2},
    )  # fmt: skip
    assert (len(made.train), len(made.validation)) == (16, 2)
    assert any(line.startswith("Rows of the split test are not trained on:") for line in said)


def test_rows_to_validate_on_are_named_once() -> None:
    recipe = {
        "model": {"name": "tiny"}, "data": {"train": ["a"], "validation": ["b"]}, "curate": {"steps": ["split"]},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="1 problem") as error:
        config.from_mapping(recipe, where="a test")
    assert error.value.found is not None
    assert "curate.split.validation: is above 0" in error.value.found
    assert "data.validation is set, too" in error.value.found


def test_no_row_to_validate_on_is_an_error(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "one.jsonl", [{"prompt": "The same?", "completion": f"No {n}."} for n in range(9)])
    with pytest.raises(DataError, match="No row could be set apart for validation"):
        prepared(tiny_tokenizer_folder, tmp_path, data={"train": [data]}, curate={"steps": ["split"]})
