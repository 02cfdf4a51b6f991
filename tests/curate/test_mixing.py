"""The step `mix`: the formulas, what goes on of each source, the books of it, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tutelage.config.curation import CurateSettings
from tutelage.config.curation_mix import MixSettings
from tutelage.curate.mixing.rates import Asked, planned, rates_of, rounded
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest
from tutelage.errors import ConfigError, DataError

SIZES = {"large": 100, "middle": 40, "small": 10}


def row(source: str, number: int, **fields: Any) -> dict[str, Any]:
    turns = [("user", f"ask {source} {number}"), ("assistant", f"answer {source} {number}")]
    return {"messages": [{"role": role, "content": text} for role, text in turns], **fields}


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, ...]:
    paths = []
    for source, size in SIZES.items():
        path = tmp_path / f"{source}.jsonl"
        path.write_text("".join(json.dumps(row(source, number)) + "\n" for number in range(size)), encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def run(
    data: tuple[Path, ...], out: Path, *, workers: int = 1, chunk_rows: int = 16, seed: int = 7, **mix: Any
) -> Curated:
    """Curates with the step alone; sources are named in tables by their stem."""
    named = {path.stem: str(path) for path in data}
    for table in ("weights", "caps", "replay"):
        if table in mix and mix.get("field") is None:
            mix[table] = {named.get(name, name): value for name, value in mix[table].items()}
    settings = CurateSettings(steps=["mix"], mix=MixSettings(**mix))
    request = CurationRequest(tuple(map(str, data)), out, settings, seed=seed, workers=workers, chunk_rows=chunk_rows)
    return curate(request)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counts(out: Path) -> dict[str, int]:
    return dict(Counter(Path(one["metadata"]["file"]).stem for one in records(out / "data.jsonl")))


def report(out: Path) -> dict[str, dict[str, Any]]:
    sources = json.loads((out / "mix.json").read_text(encoding="utf-8"))["sources"]
    return {Path(name).stem: facts for name, facts in sources.items()}


class TestRates:
    def test_examples_proportional_mixing_is_the_published_formula(self) -> None:
        """r_m = min(e_m, K) / sum of min(e_n, K); Raffel et al. 2020, section 3.5.2, with FLAN's K."""
        sizes = np.array([30_000, 3_000, 250])
        rates = rates_of(sizes, np.ones(3), limit=3000, temperature=1.0)
        assert rates == pytest.approx(np.array([3000, 3000, 250]) / 6250)

    @pytest.mark.parametrize("temperature", [2.0, 5.0])
    def test_temperature_raises_the_rates_and_makes_them_sum_to_one(self, temperature: float) -> None:
        sizes = np.array([90_000, 100, 4])
        rates = np.array([90_000, 100, 4]) / 90_104
        expected = rates ** (1 / temperature)
        scaled = rates_of(sizes, np.ones(3), limit=None, temperature=temperature)
        assert scaled == pytest.approx(expected / expected.sum())

    def test_a_high_temperature_gives_each_source_the_same(self) -> None:
        rates = rates_of(np.array([10_000_000, 1]), np.ones(2), limit=None, temperature=1e6)
        assert rates == pytest.approx([0.5, 0.5], abs=1e-5)

    def test_a_source_without_rows_has_no_rate(self) -> None:
        assert rates_of(np.array([4, 0]), np.ones(2), limit=None, temperature=3).tolist() == [1.0, 0.0]
        assert rates_of(np.array([0, 0]), np.ones(2), limit=None, temperature=3).tolist() == [0.0, 0.0]

    def test_whole_numbers_sum_to_the_total_and_are_less_than_one_away(self) -> None:
        generator = np.random.default_rng(0)
        for total in (1, 7, 1000, 12_345):
            shares = generator.dirichlet(np.ones(9))
            whole = rounded(shares, total)
            assert whole.sum() == total
            assert np.abs(whole - shares * total).max() < 1

    def test_equal_shares_that_do_not_divide_go_to_the_first(self) -> None:
        assert rounded(np.array([1 / 3, 1 / 3, 1 / 3]), 10).tolist() == [4, 3, 3]

    def test_replay_comes_on_top_of_what_the_task_comes_to(self) -> None:
        asked = Asked(weights=np.ones(2), replay=np.array([0, 0.1]))
        shares, rows = planned(np.array([90, 5]), asked)
        assert shares == pytest.approx([0.9, 0.1])
        assert rows.tolist() == [90, 10]


def test_without_settings_every_row_goes_on_once(data: tuple[Path, ...], tmp_path: Path) -> None:
    assert run(data, tmp_path / "out").funnel.rows_kept == 150
    assert counts(tmp_path / "out") == SIZES


def test_weights_say_how_often_each_row_goes_on_as_in_training(data: tuple[Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    funnel = run(data, out, weights={"small": 2.5, "large": 0.5}).funnel
    assert counts(out) == {"large": 50, "middle": 40, "small": 25}
    assert (funnel.total("added"), funnel.total("dropped")) == (15, 50)
    assert funnel.rows_in + 15 == funnel.rows_kept + 50
    small = Counter(one["metadata"]["number"] for one in records(out / "data.jsonl") if "small" in str(one["metadata"]))
    assert sorted(small.values()) == [2] * 5 + [3] * 5, "each row twice, half of them once more"
    ledger = records(out / "ledger.jsonl")
    assert sum(entry["rows"] for entry in ledger if entry.get("added") == "repeated") == 15
    gone = [entry for entry in ledger if entry.get("dropped") == "not_drawn"]
    assert len(gone) == 50
    assert gone[0]["detail"] == f"50 of 100 rows of {data[0]} go on"


def test_a_cap_bounds_different_rows_and_star_is_for_the_others(data: tuple[Path, ...], tmp_path: Path) -> None:
    funnel = run(data, tmp_path / "out", caps={"*": 30, "large": 60}).funnel
    assert counts(tmp_path / "out") == {"large": 60, "middle": 30, "small": 10}
    assert funnel.steps[1].dropped == {"over_cap": 50}
    run(data, tmp_path / "both", caps={"small": 5}, weights={"small": 2.0})
    facts = report(tmp_path / "both")["small"]
    assert (facts["rows_in"], facts["over_cap"], facts["rows_out"], facts["repeats"]) == (10, 5, 10, 5)


def test_a_limit_and_a_total_are_those_of_flan(data: tuple[Path, ...], tmp_path: Path) -> None:
    run(data, tmp_path / "limit", limit=20)
    assert counts(tmp_path / "limit") == {"large": 20, "middle": 20, "small": 10}
    run(data, tmp_path / "total", limit=20, rows=500)
    assert counts(tmp_path / "total") == {"large": 200, "middle": 200, "small": 100}
    assert {name: facts["share_asked"] for name, facts in report(tmp_path / "total").items()} == {
        "large": 0.4, "middle": 0.4, "small": 0.2,
    }  # fmt: skip


def test_a_temperature_moves_rows_and_leaves_the_total(data: tuple[Path, ...], tmp_path: Path) -> None:
    funnel = run(data, tmp_path / "out", temperature=2.0).funnel
    roots = {name: size**0.5 for name, size in SIZES.items()}
    expected = {name: 150 * root / sum(roots.values()) for name, root in roots.items()}
    met = counts(tmp_path / "out")
    assert funnel.rows_kept == 150
    assert all(abs(met[name] - expected[name]) < 1 for name in SIZES)


def test_replay_is_a_share_of_the_result(data: tuple[Path, ...], tmp_path: Path) -> None:
    result = run(data, tmp_path / "out", replay={"small": 0.25})
    assert counts(tmp_path / "out") == {"large": 100, "middle": 40, "small": 47}
    assert report(tmp_path / "out")["small"]["share"] == pytest.approx(0.25, abs=0.005)
    assert any("small.jsonl goes on 4.7 times on average (10 different rows)" in note for note in result.notes)
    run(data, tmp_path / "total", replay={"small": 0.25}, rows=100)
    assert counts(tmp_path / "total") == {"large": 54, "middle": 21, "small": 25}


def test_a_total_of_trained_tokens(data: tuple[Path, ...], tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    run(data, tmp_path / "out", trained_tokens=2000, tokenizer=str(tiny_tokenizer_folder))
    content = json.loads((tmp_path / "out" / "mix.json").read_text(encoding="utf-8"))
    assert content["trained_tokens"] == pytest.approx(2000, rel=0.02)
    assert content["trained_tokens"] == sum(facts["trained_tokens"] for facts in content["sources"].values())


def test_rows_are_mixed_by_a_field_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "flan.jsonl"
    rows = [row("x", number, category="nli" if number % 4 else "qa") for number in range(40)]
    rows += [row("y", number) for number in range(3)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    result = run((path,), tmp_path / "out", field="category", caps={"*": 8}, weights={"qa": 2.0})
    met = Counter(one["metadata"].get("category") for one in records(tmp_path / "out" / "data.jsonl"))
    assert met == {"nli": 8, "qa": 16, None: 3}
    assert "3 rows have no category; they are the source (none)" in " ".join(result.notes)
    with pytest.raises(ConfigError, match="names a source that is not there") as error:
        run((path,), tmp_path / "other", field="category", weights={"nlj": 2.0})
    assert error.value.fix == "did you mean 'nli'?"


def test_the_same_bytes_for_any_workers_and_another_seed_draws_others(data: tuple[Path, ...], tmp_path: Path) -> None:
    mix: dict[str, Any] = {"weights": {"large": 0.3, "small": 1.5}, "replay": {"middle": 0.2}}
    run(data, tmp_path / "one", **mix)
    run(data, tmp_path / "three", workers=3, **mix)
    run(data, tmp_path / "seed", seed=8, **mix)
    one, three, seed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("one", "three", "seed")
    )
    assert one == three
    assert one["mix.json"] == seed["mix.json"]
    assert one["data.jsonl"] != seed["data.jsonl"]


def test_without_shuffle_rows_stay_in_their_order(data: tuple[Path, ...], tmp_path: Path) -> None:
    run(data, tmp_path / "out", weights={"small": 2.0}, shuffle=False)
    kept = [one["metadata"]["row"] for one in records(tmp_path / "out" / "data.jsonl")]
    assert kept == [*range(140), *(row for row in range(140, 150) for _ in range(2))]


def test_the_same_files_under_other_names_are_mixed_anew(data: tuple[Path, ...], tmp_path: Path) -> None:
    """What was computed by the sources as they were named before is not what is asked for now."""
    out = tmp_path / "out"
    run(data, out, caps={"*": 10})
    folder = tmp_path / "folder"
    folder.mkdir()
    settings = CurateSettings(steps=["mix"], mix=MixSettings(caps={"*": 10}))
    curate(CurationRequest((str(tmp_path / "*.jsonl"),), out, settings, seed=7, workers=1, chunk_rows=16))
    assert sum(counts(out).values()) == 10


def test_an_unknown_source_is_refused_before_any_row_is_read(data: tuple[Path, ...], tmp_path: Path) -> None:
    for table, value in (("weights", 2.0), ("caps", 3), ("replay", 0.1)):
        with pytest.raises(ConfigError, match="names a source that is not there") as error:
            run(data, tmp_path / "out", **{table: {str(tmp_path / "smal.jsonl"): value}})
        assert error.value.fix == f"did you mean '{tmp_path / 'small.jsonl'}'?"
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"weights": {"a": 0.0}}, "greater than 0"),
        ({"weights": {"a": -1.0}}, "greater than 0"),
        ({"caps": {"a": 0}}, "greater than or equal to 1"),
        ({"replay": {"a": 1.0}}, "less than 1"),
        ({"replay": {"a": 0.5, "b": 0.5}}, "sum to 1"),
        ({"replay": {"a": 0.5}, "weights": {"a": 2.0}}, "in weights and in replay"),
        ({"rows": 10, "trained_tokens": 10}, "both rows and trained_tokens"),
    ],
)
def test_values_that_cannot_be(mix: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MixSettings(**mix)


def test_a_source_that_is_replayed_and_has_no_row_left(data: tuple[Path, ...], tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"messages": []}\n', encoding="utf-8")
    with pytest.raises(DataError, match="Nothing is left of a source") as error:
        run((*data, empty), tmp_path / "out", replay={"empty": 0.1})
    assert error.value.where == str(empty)
    with pytest.raises(ConfigError, match="All sources are replayed"):
        run((data[0],), tmp_path / "alone", replay={"large": 0.1})
    assert not (tmp_path / "alone").exists()
    with pytest.raises(DataError, match="Nothing is left beside"):
        run((data[0], empty), tmp_path / "beside", replay={"large": 0.1})


def test_repeats_are_not_taken_out_again_by_a_step_behind() -> None:
    with pytest.raises(ValidationError, match="would take out what it repeats"):
        CurateSettings(steps=["mix", "exact_duplicates"])


def test_each_file_is_a_source_by_itself_and_flan_s_rates_are_met(tmp_path: Path) -> None:
    """A folder of data sets, as FLAN's: at most so many rows of each, at rates of min(rows, limit)."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    sizes = {"nli": 300, "qa": 50, "sums": 10}
    for name, size in sizes.items():
        rows = "".join(json.dumps(row(name, number)) + "\n" for number in range(size))
        (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    result = run((folder,), tmp_path / "out", field="file", caps={"*": 200}, limit=30, rows=700)
    assert counts(tmp_path / "out") == {"nli": 300, "qa": 300, "sums": 100}
    facts = report(tmp_path / "out")
    assert {name: (one["over_cap"], one["different_rows"]) for name, one in facts.items()} == {
        "nli": (100, 200), "qa": (0, 50), "sums": (0, 10),
    }  # fmt: skip
    assert len([note for note in result.notes if "times on average" in note]) == 2


def test_a_task_that_rows_name_is_a_category(tmp_path: Path) -> None:
    path = tmp_path / "flan.jsonl"
    rows = [row("x", number, task=f"task {number % 2}") for number in range(20)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    run((path,), tmp_path / "out", field="category", weights={"task 1": 2.0})
    assert {name: facts["rows_out"] for name, facts in report(tmp_path / "out").items()} == {"task 0": 10, "task 1": 20}
