"""The step `split`: what stays together, how shares are met, and that nothing alike stands on two sides."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.curate.planted import planted_rows, sets_of_words, shingles, vocabulary
from tutelage import formats
from tutelage.config.curation import CurateSettings
from tutelage.config.curation_mix import MixSettings
from tutelage.config.curation_select import SelectSettings
from tutelage.config.curation_sharegpt import SharegptSettings
from tutelage.config.curation_split import SplitSettings
from tutelage.curate.out_folder import SPLITS
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.restore import restore
from tutelage.curate.splitting.across import similarity_across
from tutelage.curate.splitting.assignment import assigned
from tutelage.curate.splitting.together import Together
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.types import Conversation

SHARES = np.array([0.8, 0.1, 0.1])


def row(*texts: str, **fields: Any) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return {"messages": turns, **fields}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def run(
    data: Path | tuple[Path, ...],
    out: Path,
    *,
    steps: tuple[str, ...] = ("split",),
    workers: int = 1,
    chunk_rows: int = 40,
    file_format: Any = "jsonl",
    mix: MixSettings | None = None,
    seed: int = 3,
    **split: Any,
) -> Curated:
    sources = data if isinstance(data, tuple) else (data,)
    settings = CurateSettings(steps=list(steps), split=SplitSettings(**split), mix=mix or MixSettings())
    return curate(
        CurationRequest(
            tuple(map(str, sources)), out, settings, seed=seed, workers=workers, chunk_rows=chunk_rows,
            file_format=file_format,
        )
    )  # fmt: skip


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_split(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: records(out / f"{name}.jsonl") for name in SPLITS if (out / f"{name}.jsonl").exists()}


def splits_of(out: Path) -> dict[int, str]:
    """The split of each row of the input."""
    return {one["metadata"]["row"]: name for name, rows in by_split(out).items() for one in rows}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    prompts, replies = planted_rows(5, 150)
    texts = [row(" ".join(prompt), " ".join(reply)) for prompt, reply in zip(prompts, replies, strict=True)]
    return write(tmp_path / "planted.jsonl", texts)


def jaccard(first: set[Any], second: set[Any]) -> float:
    return len(first & second) / len(first | second)


def test_no_pair_of_prompts_on_two_sides_is_alike_and_the_report_says_how_much(planted: Path, tmp_path: Path) -> None:
    """Held against all pairs, each compared by the definition."""
    out = tmp_path / "out"
    run(planted, out, similarity=0.4)
    sets = {
        name: [shingles(one["messages"][0]["content"].split()) for one in rows] for name, rows in by_split(out).items()
    }
    highest = {
        (first, second): max(jaccard(left, right) for left in sets[first] for right in sets[second])
        for first, second in combinations(SPLITS, 2)
    }
    assert max(highest.values()) < 0.4
    report = json.loads((out / "split.json").read_text(encoding="utf-8"))
    said = {tuple(pair["splits"]): pair["similarity"] for pair in report["across"]["highest"]}
    assert {pair: round(similarity, 4) for pair, similarity in highest.items() if similarity} == said
    assert report["clusters"]["joined_by"]["near_prompt"] > 20


def test_pairs_that_signatures_hardly_ever_meet_are_joined(tmp_path: Path) -> None:
    """24 of 40 words in common, from the start, are a similarity of 0.38 and agree on a band one time in 16."""
    generator = random.Random(2)
    words = vocabulary(generator, 3000)
    rows = []
    for _ in range(60):
        start = generator.choices(words, k=24)
        rows += [row(" ".join([*start, *generator.choices(words, k=16)]), "reply") for _ in range(2)]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out", similarity=0.3)
    splits = splits_of(tmp_path / "out")
    assert all(splits[first] == splits[first + 1] for first in range(0, 120, 2))
    assert set(splits.values()) == set(SPLITS)


def test_a_split_by_row_would_have_leaked(planted: Path) -> None:
    """What the step is held against: the same rows drawn one by one have near-copies on two sides."""
    texts = [json.loads(line)["messages"][0]["content"].split() for line in planted.read_text("utf-8").splitlines()]
    sets = sets_of_words(texts, [[]] * len(texts))
    splits = np.random.default_rng(0).choice(3, len(texts), p=SHARES)
    found = similarity_across([sets], np.arange(len(texts)), splits, 0.8)
    assert len(found.alike) > 5


def test_every_row_goes_on_with_its_split_and_shares_are_met_by_source(tmp_path: Path) -> None:
    sources = tuple(
        write(tmp_path / f"{name}.jsonl", [row(f"{name} question {number}", "yes") for number in range(size)])
        for name, size in (("large", 400), ("small", 50))
    )
    funnel = run(sources, tmp_path / "out").funnel
    rows = by_split(tmp_path / "out")
    assert funnel.rows_kept == 450 == sum(map(len, rows.values()))
    assert not (tmp_path / "out" / "data.jsonl").exists()
    counts = {
        name: [sum(Path(one["metadata"]["file"]).stem == stem for one in part) for stem in ("large", "small")]
        for name, part in rows.items()
    }
    assert counts == {"train": [320, 40], "validation": [40, 5], "test": [40, 5]}
    assert all(one["metadata"]["split"] == name for name, part in rows.items() for one in part)


def test_one_prompt_with_several_replies_stays_on_one_side(tmp_path: Path) -> None:
    rows = [row(f"What is {number % 40}?", f"It is {number}.") for number in range(200)]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out", similarity=1.0)
    splits = splits_of(tmp_path / "out")
    assert all(len({splits[number + 40 * time] for time in range(5)}) == 1 for number in range(40))
    assert set(splits.values()) == set(SPLITS)


def test_a_prompt_of_many_replies_is_no_template(tmp_path: Path) -> None:
    """Its runs of words are in more than 50 rows, and yet a near-copy of it is held to it."""
    text = " ".join(f"word{number}" for number in range(30))
    rows = [row(text, f"reply {number}") for number in range(80)]
    rows += [row(f"{text} please {number}", "reply") for number in range(20)]
    rows += [row(f"something else {number}", "reply") for number in range(300)]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert len({split for number, split in splits_of(tmp_path / "out").items() if number < 100}) == 1


def test_conversations_that_begin_alike_stay_on_one_side_but_greetings_hold_nothing(tmp_path: Path) -> None:
    opening = "Could you help me with my thesis today?"
    rows = [row(opening, "Yes.", f"It is about subject number {number}.", "Good.") for number in range(30)]
    rows += [row("Hello!", "Hi.", f"Now tell me about matter {number}.", "Well.") for number in range(100)]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out", similarity=1.0)
    splits = splits_of(tmp_path / "out")
    assert len({splits[number] for number in range(30)}) == 1
    assert {splits[number] for number in range(30, 130)} == set(SPLITS)


def test_parts_of_one_conversation_stay_on_one_side(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(*(f"turn {turn} of talk {n}" for turn in range(8))) for n in range(40)])
    settings = CurateSettings(
        steps=["sharegpt", "split"],
        sharegpt=SharegptSettings(conversation_tokens=45, tokenizer=str(tiny_tokenizer_folder)),
        split=SplitSettings(similarity=1.0),
    )
    funnel = curate(CurationRequest((str(path),), tmp_path / "out", settings, workers=1)).funnel
    sides = defaultdict(set)
    for name, rows in by_split(tmp_path / "out").items():
        for one in rows:
            sides[one["metadata"]["row"]].add(name)
    assert funnel.total("added") >= 40
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) == set(SPLITS)


def test_rows_of_one_value_of_a_field_stay_on_one_side(tmp_path: Path) -> None:
    rows = [row(f"question {number}", "yes", source=f"document {number % 25}") for number in range(100)]
    path = write(tmp_path / "rows.jsonl", rows)
    run(path, tmp_path / "out", field="source")
    sides = defaultdict(set)
    for number, split in splits_of(tmp_path / "out").items():
        sides[number % 25].add(split)
    assert all(len(side) == 1 for side in sides.values())
    with pytest.raises(ConfigError, match="No row has the field"):
        run(path, tmp_path / "other", field="document")


def test_documents_are_held_together_by_their_text(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    rows = [{"text": f"{text} and page {number // 20}"} for number in range(40)]
    rows += [{"text": f"another page, namely {number}, about thing {number * 7}"} for number in range(200)]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert len({split for number, split in splits_of(tmp_path / "out").items() if number < 40}) == 1


def test_the_same_bytes_for_any_workers_and_chunks_and_another_seed_splits_otherwise(
    planted: Path, tmp_path: Path
) -> None:
    for name, changed in (
        ("one", {}),
        ("three", {"workers": 3}),
        ("chunks", {"chunk_rows": 60}),
        ("seed", {"seed": 4}),
    ):
        run(planted, tmp_path / name, **{"chunk_rows": 150, **changed})
    one, three, chunks, seed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("one", "three", "chunks", "seed")
    )
    assert one == three
    del one["hashes.json"], chunks["hashes.json"]  # the key of the output names the chunks
    assert one == chunks
    assert one["test.jsonl"] != seed["test.jsonl"]


def test_a_cluster_that_no_held_out_file_can_hold_is_said(tmp_path: Path) -> None:
    rows = [row("the same question for all", f"reply {number}") for number in range(95)]
    rows += [row(f"question {number}", "reply") for number in range(5)]
    notes = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out").notes
    assert len(by_split(tmp_path / "out")["train"]) >= 95
    assert any("95 rows like that of" in note and "more than train was to have" in note for note in notes)


def test_a_file_without_rows_is_said_and_a_share_of_0_makes_none(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row("one question", "yes")])
    notes = run(path, tmp_path / "out", validation=0.2, test=0.0).notes
    assert any("validation has no row" in note for note in notes)
    assert (tmp_path / "out" / "validation.jsonl").read_bytes() == b""
    assert not (tmp_path / "out" / "test.jsonl").exists()


def test_another_curation_of_the_folder_leaves_no_file_of_the_split(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(planted, out)
    curate(CurationRequest((str(planted),), out, CurateSettings(steps=[]), workers=1))
    assert sorted(path.name for path in out.glob("*.json*") if not path.name.startswith(".")) == [
        "data.jsonl", "dropped.jsonl", "funnel.json", "hashes.json", "ledger.jsonl",
    ]  # fmt: skip


def test_parquet_files_read_back(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "lines")
    curated = run(planted, tmp_path / "tables", file_format="parquet")
    assert list(curated.files) == list(SPLITS)
    assert curated.data == tmp_path / "tables" / "train.parquet"
    for name in SPLITS:
        lines, table = (
            [*read(tmp_path / kind / f"{name}.{end}")] for kind, end in (("lines", "jsonl"), ("tables", "parquet"))
        )
        assert [one.messages for one in lines] == [one.messages for one in table]


def read(path: Path) -> list[Conversation]:
    return list(formats.read([str(path)], ledger=Ledger()))


def test_what_is_mixed_behind_it_are_the_rows_to_train_on(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(f"question {number}", "yes") for number in range(100)])
    mix = MixSettings(weights={str(path): 2.0})
    run(path, tmp_path / "out", steps=("split", "mix"), mix=mix)
    assert {name: len(rows) for name, rows in by_split(tmp_path / "out").items()} == {
        "train": 160, "validation": 10, "test": 10,
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "mix.json").read_text("utf-8"))["rows"] == 160


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_a_row_that_comes_back_goes_beside_what_it_must_stay_with(tmp_path: Path, file_format: str) -> None:
    rows = [row(f"a question of which number {number} is asked", f"reply {number}") for number in range(60)]
    rows += [one for one in rows for _ in range(1)]
    path, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    run(path, out, steps=("exact_duplicates", "split"), similarity=1.0, file_format=file_format)
    before = {name: [one.messages for one in read(out / f"{name}.{file_format}")] for name in SPLITS}
    assert restore(out, "exact_duplicate") == 60
    after = {name: [one.messages for one in read(out / f"{name}.{file_format}")] for name in SPLITS}
    assert after == {name: kept + kept for name, kept in before.items()}
    assert run(
        path, out, steps=("exact_duplicates", "split"), similarity=1.0, file_format=file_format
    ).computed == {}  # fmt: skip


def test_a_near_copy_that_comes_back_goes_beside_the_row_it_is_like(tmp_path: Path) -> None:
    generator = random.Random(4)
    words = vocabulary(generator, 2000)
    rows = []
    for _ in range(60):
        prompt, reply = generator.choices(words, k=40), " ".join(generator.choices(words, k=40))
        rows += [row(" ".join(["please", *prompt]), reply), row(" ".join([*prompt, "thanks"]), reply)]
    out = tmp_path / "out"
    run(write(tmp_path / "rows.jsonl", rows), out, steps=("near_duplicates", "split"))
    assert restore(out, "near_duplicate") == 60
    splits = splits_of(out)
    assert all(splits[first] == splits[first + 1] for first in range(0, 120, 2))
    restored = [one["metadata"] for rows in by_split(out).values() for one in rows if "restored" in one["metadata"]]
    assert all(one["split"] == splits[one["row"]] for one in restored)


def test_a_row_that_went_behind_the_step_comes_back_where_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(f"question {number}", "yes", split="own") for number in range(50)])
    settings = CurateSettings(steps=["split", "select"], select=SelectSettings(keep=10))
    request = CurationRequest((str(path),), tmp_path / "out", settings, workers=1)
    curate(request)
    assert restore(tmp_path / "out", "not_selected") == 40
    assert {name: len(rows) for name, rows in by_split(tmp_path / "out").items()} == {
        "train": 40, "validation": 5, "test": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"train": 0.9}, "sum to 1.1, not to 1"),
        ({"train": 0.0, "validation": 0.9}, "greater than 0"),
        ({"train": 1.1, "validation": -0.1, "test": 0.0}, "less than or equal to 1"),
        ({"similarity": 0.1}, "greater than or equal to 0.3"),
    ],
)
def test_values_that_cannot_be(split: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SplitSettings(**split)


class TestAssignment:
    def test_shares_are_met_to_a_row_where_clusters_are_single_rows(self) -> None:
        clusters, sources = np.arange(1000), np.repeat([0, 1], [900, 100]).astype(np.int32)
        splits = assigned(clusters, sources, SHARES, 1).splits
        assert np.bincount(splits[:900]).tolist() == [720, 90, 90]
        assert np.bincount(splits[900:]).tolist() == [80, 10, 10]

    def test_clusters_of_all_sizes_are_in_all_splits(self) -> None:
        sizes = np.array([1] * 300 + [5] * 60 + [10] * 30)
        clusters = np.repeat(np.cumsum(sizes) - sizes, sizes)
        splits = assigned(clusters, np.zeros(len(clusters), dtype=np.int32), SHARES, 1).splits
        assert np.bincount(splits) == pytest.approx(SHARES * 900, abs=6)
        size_of_row = np.repeat(sizes, sizes)
        for split in range(3):
            assert set(size_of_row[splits == split].tolist()) == {1, 5, 10}

    def test_no_row_and_one_split(self) -> None:
        assert len(assigned(np.zeros(0, np.int64), np.zeros(0, np.int32), SHARES, 1).splits) == 0
        one = assigned(np.arange(5), np.zeros(5, np.int32), np.ones(1), 1)
        assert one.splits.tolist() == [0] * 5


def test_joins_by_chains_are_followed_to_their_ends() -> None:
    together = Together(6)
    assert together.join_pairs(np.array([[0, 1], [1, 2], [4, 5], [2, 0]])) == 3
    assert together.clusters().tolist() == [0, 0, 0, 3, 4, 4]
    assert together.join_equals(np.array([7, 8, 9, 7, 8, 1]), np.array([1, 1, 0, 1, 1, 1], dtype=bool)) == 2
    assert len(set(together.clusters().tolist())) == 1
