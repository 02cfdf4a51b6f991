"""The step `select`: what each method takes, quotas and budgets, what is said of it, and the same rows on every run."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tests.curate.planted import vocabulary
from tutelage.config.curation import CurateSettings
from tutelage.config.curation_select import SelectSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.selection import step as selection_step
from tutelage.curate.selection.allowance import Allowance
from tutelage.curate.selection.coverage import Covered, sampled_runs
from tutelage.curate.selection.diversity import facility_location, k_center, score_first
from tutelage.curate.text_vectors import centered, hashed_vectors
from tutelage.errors import ConfigError

TOPICS = 6


def topical_texts(seed: int, sizes: list[int]) -> list[str]:
    """Texts of topics that share no word, as many of each as `sizes` says, the topics one behind the other."""
    generator = random.Random(seed)
    texts = []
    for topic, size in enumerate(sizes):
        words = [f"{word}{topic}" for word in vocabulary(generator, 25)]
        texts += [" ".join(generator.choices(words, k=30)) for _ in range(size)]
    return texts


def write_rows(path: Path, texts: list[str]) -> Path:
    """Rows with a score, the higher the later, and replies that get longer, then shorter."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"tell me of {number}"},
                {"role": "assistant", "content": text + " more" * (9 * number if number < 20 else 0)},
            ],
            "score": number / 10,
        }
        for number, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", topical_texts(1, [15, 12, 10, 9, 7, 7]))


def run(data: Path | tuple[Path, ...], out: Path, workers: int = 1, chunk_rows: int = 16, **select: Any) -> Curated:
    sources = data if isinstance(data, tuple) else (data,)
    settings = CurateSettings(steps=["select"], select=SelectSettings(**select))
    request = CurationRequest(tuple(map(str, sources)), out, settings, seed=7, workers=workers, chunk_rows=chunk_rows)
    return curate(request)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(out: Path) -> list[int]:
    return [row["metadata"]["row"] for row in records(out / "data.jsonl")]


def allowance(rows: int, keep: int) -> Allowance:
    return Allowance(np.ones(rows, dtype=np.int64), keep, np.zeros(rows, dtype=np.int32), [None])


def test_longest_and_score_take_the_ends_and_say_what_was_too_short(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "longest", keep=3, method="longest")
    assert kept(tmp_path / "longest") == [17, 18, 19]
    gone = records(tmp_path / "longest" / "ledger.jsonl")
    assert len(gone) == 57
    assert {entry["dropped"] for entry in gone} == {"not_selected"}
    assert "characters; chosen: " in gone[0]["detail"]
    run(data, tmp_path / "score", keep=2, method="score")
    assert kept(tmp_path / "score") == [58, 59]
    assert [row["metadata"]["select"] for row in records(tmp_path / "score" / "data.jsonl")] == ["2", "1"]
    assert records(tmp_path / "score" / "data.jsonl")[0]["metadata"]["score"] == 5.8


def test_random_is_drawn_by_the_seed_from_all_rows(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out", keep=20)
    assert kept(tmp_path / "out") == sorted(np.random.default_rng(7).permutation(60)[:20].tolist())


@pytest.mark.parametrize("diversity", ["facility_location", "k_center"])
def test_diversity_takes_a_row_of_each_topic_first(data: Path, tmp_path: Path, diversity: str) -> None:
    result = run(data, tmp_path / "out", keep=TOPICS, method="diversity", diversity=diversity)
    bounds = np.cumsum([15, 12, 10, 9, 7, 7])
    assert sorted(np.searchsorted(bounds, kept(tmp_path / "out"), side="right").tolist()) == list(range(TOPICS))
    entry = records(tmp_path / "out" / "ledger.jsonl")[0]
    assert "nearest chosen row" in entry["detail"]
    assert any("% of the topics" in note for note in result.notes)
    assert any(note.startswith("select: the next 54 would make it ") for note in result.notes)


def test_the_price_of_looking_further_is_bounded(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_step, "MOST_COMPARED", 10 * 60 * TOPICS - 1)
    result = run(data, tmp_path / "out", keep=TOPICS, method="diversity")
    assert any(note.startswith(f"select: the next {TOPICS} would make it ") for note in result.notes)


def test_lazy_facility_location_is_the_greedy_one() -> None:
    vectors = centered(hashed_vectors(topical_texts(3, [20, 10, 8, 5])))
    allowed = allowance(len(vectors), 12)
    facility_location(vectors, allowed, seed=0)
    similar = np.maximum(vectors @ vectors.T, 0)
    best, greedy = np.zeros(len(vectors), dtype=np.float32), []
    for _ in range(12):
        gains = np.maximum(similar, best).astype(np.float64).sum(axis=1)
        gains[greedy] = -1
        greedy.append(int(gains.argmax()))
        best = np.maximum(best, similar[greedy[-1]])
    assert allowed.taken == greedy


def test_k_center_takes_the_farthest_row_each_time() -> None:
    vectors = centered(hashed_vectors(topical_texts(4, [9, 9, 9])))
    allowed = allowance(len(vectors), 8)
    k_center(vectors, allowed)
    for count in range(1, 8):
        nearest = (vectors @ vectors[allowed.taken[:count]].T).max(axis=1)
        nearest[allowed.taken[:count]] = np.inf
        assert nearest[allowed.taken[count]] == pytest.approx(nearest.min(), abs=1e-6)


def test_score_first_passes_over_what_is_like_a_better_row(tmp_path: Path) -> None:
    texts = topical_texts(5, [5, 5])
    copies = [*texts, *(f"{text} indeed" for text in texts[:4])]
    data = write_rows(tmp_path / "rows.jsonl", copies)
    run(data, tmp_path / "out", keep=10, method="score_first", similarity=0.6)
    assert kept(tmp_path / "out") == list(range(4, 14))
    passed = [entry for entry in records(tmp_path / "out" / "ledger.jsonl") if entry["dropped"] == "like_a_better_one"]
    assert not passed  # all ten places were full before their turn
    run(data, tmp_path / "more", keep=14, method="score_first", similarity=0.6)
    passed = [entry for entry in records(tmp_path / "more" / "ledger.jsonl") if entry["dropped"] == "like_a_better_one"]
    assert [entry["row"] for entry in passed] == [0, 1, 2, 3]
    assert passed[0]["detail"].endswith(f"{data}:11")


def test_score_first_compares_inside_of_a_block_and_with_blocks_before() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    allowed = allowance(6, 6)
    passed = score_first(vectors, np.array([5, 4, 3, 2, 1, 0]), 0.9, allowed)
    assert allowed.taken == [5, 4, 3]
    assert {row: anchor for row, (anchor, _) in passed.items()} == {2: 3, 1: 5, 0: 5}


def test_quotas_bound_each_source(tmp_path: Path) -> None:
    texts = topical_texts(6, [10, 10])
    first, second = write_rows(tmp_path / "a.jsonl", texts), write_rows(tmp_path / "b.jsonl", texts)
    run((first, second), tmp_path / "out", keep=9, method="score", quotas={str(first): 2, "*": 5})
    files = [row["metadata"]["file"] for row in records(tmp_path / "out" / "data.jsonl")]
    assert (files.count(str(first)), files.count(str(second))) == (2, 5)
    over = [entry for entry in records(tmp_path / "out" / "ledger.jsonl") if entry["dropped"] == "over_quota"]
    assert len(over) == 33
    assert over[0]["detail"] == f"the quota of {first} was full"


@pytest.mark.parametrize("method", ["random", "longest", "score_first", "diversity"])
def test_the_same_rows_for_any_workers_and_chunks(data: Path, tmp_path: Path, method: str) -> None:
    run(data, tmp_path / "one", keep=17, method=method)
    run(data, tmp_path / "two", keep=17, method=method, workers=2, chunk_rows=7)
    for name in ("data.jsonl", "ledger.jsonl", "card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_more_rows_than_there_are_keeps_all(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out", keep=1000, method="diversity")
    assert kept(tmp_path / "out") == list(range(60))


def test_a_budget_of_tokens_is_not_overspent(data: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    result = run(data, tmp_path / "out", trained_tokens=200, tokenizer=str(tmp_path), method="longest")
    lengths = [len(row["messages"][1]["content"].split()) for row in records(tmp_path / "out" / "data.jsonl")]
    assert 200 - 30 < sum(lengths) <= 200
    assert f"select: the rows chosen have {sum(lengths)} tokens of replies" in result.notes


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ({}, "neither keep nor trained_tokens"),
        ({"keep": 3, "trained_tokens": 5}, "both keep and trained_tokens"),
        ({"trained_tokens": 5}, "needs a tokenizer"),
        ({"keep": 3, "method": "score", "score": "quality"}, "no row has a score"),
    ],
)
def test_what_cannot_work_is_said(data: Path, tmp_path: Path, select: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(data, tmp_path / "out", **select)


def test_coverage_counts_what_comes_again() -> None:
    runs = sampled_runs([" ".join(f"w{number}" for number in range(start, start + 200)) for start in (0, 0, 1000)])
    covered = Covered.of(np.array([0, 1, 2], dtype=np.int32), runs)
    assert covered.by([0]).runs == 1.0
    assert covered.by([2]).runs == 0.0
    assert covered.by([2]).topics == pytest.approx(1 / 3)
    assert 10 < len(runs[0]) < 50


def test_hashed_vectors_are_near_the_cosine_of_the_sets() -> None:
    texts = topical_texts(8, [6])
    vectors = hashed_vectors(texts)
    np.testing.assert_array_equal(vectors[2:4], hashed_vectors(texts[2:4]))
    assert not hashed_vectors(["", "..."]).any()
    words = [text.split() for text in texts]
    sets = [{*text, *pairwise(text)} for text in words]
    exact = [[len(first & second) / (len(first) * len(second)) ** 0.5 for second in sets] for first in sets]
    assert np.abs(vectors @ vectors.T - np.array(exact)).max() < 0.25


def test_a_quota_of_a_source_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curate\.select\.quotas names a source that is not there") as error:
        run(data, tmp_path / "out", keep=3, quotas={f"{data}l": 2, "*": 1})
    assert error.value.fix == f"did you mean '{data}'?"
    assert not (tmp_path / "out").exists()
