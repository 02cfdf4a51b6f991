"""What an overview holds of a curation: samples that balance, a map that is the same each time, nothing unmasked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.config.curation import CurateSettings
from tutelage.curate.overview import gather
from tutelage.curate.overview.parts import ANCHOR, KEPT, Overview
from tutelage.curate.overview.rows_map import HASHED, places_of, text_vectors, topics_of
from tutelage.curate.overview.samples import Kind, drawn, shares_of
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest

MAIL = "anna.schmidt@posteo.de"
KITCHEN = ("bread", "flour", "oven", "dough", "yeast", "salt", "butter", "knead")
HARBOR = ("ship", "anchor", "harbor", "sail", "mast", "captain", "rope", "deck")


class Kept:
    """Keeps the overview in the place of a page."""

    key = "kept"

    def __init__(self) -> None:
        self.overviews: list[Overview] = []

    def __call__(self, overview: Overview, target: Path) -> None:
        self.overviews.append(overview)
        target.write_text("page", encoding="utf-8")


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Prompts and replies of two topics, one after the other."""
    generator = np.random.default_rng(seed)
    said = []
    for number in range(count):
        words = (KITCHEN, HARBOR)[number % 2]
        prompt, reply = (" ".join(generator.choice(words, 12)) for _ in range(2))
        said.append((f"{prompt} {number}?", f"{reply} number{number}."))
    return said


def written(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    lines = (
        json.dumps({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]})
        for prompt, reply in rows
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def overview(tmp_path: Path, rows: Sequence[tuple[str, str]], **changed: Any) -> Overview:
    page = Kept()
    fields: dict[str, Any] = {"steps": ["normalize", "quality", "exact_duplicates", "consistency"]} | changed
    source = written(tmp_path / "rows.jsonl", rows)
    settings = CurateSettings.model_validate(fields)
    curate(CurationRequest((str(source),), tmp_path / "out", settings, workers=1, chunk_rows=16), page=page)
    return page.overviews[0]


ROWS = [*texts(40), *texts(40)[:3], texts(40)[0], ("Say more?", "I am sorry, but as an AI language model I cannot.")]


def test_each_row_that_went_is_on_the_map_with_its_evidence(tmp_path: Path) -> None:
    seen = overview(tmp_path, ROWS)
    shown = [seen.rows[number] for number in seen.map.rows.tolist()]
    assert Counter(row.state for row in shown) == {KEPT: 40, "exact_duplicate": 4, "refusal": 1}
    assert (seen.dropped, seen.after.total, seen.before.total) == (5, 40, 45)
    refusal = next(row for row in shown if row.state == "refusal")
    assert (refusal.step, refusal.address) == ("quality", f"{tmp_path / 'rows.jsonl'}:45")
    assert "AI language model" in refusal.detail
    assert refusal.turns == (("user", "Say more?"), ("assistant", "I am sorry, but as an AI language model I cannot."))


def test_the_largest_cluster_comes_first_with_the_row_that_stands_for_it(tmp_path: Path) -> None:
    first, *others = overview(tmp_path, ROWS).duplicates
    assert (first.size, first.step, first.anchor) == (2, "exact_duplicates", f"{tmp_path / 'rows.jsonl'}:1")
    assert [cluster.size for cluster in others] == [1, 1]


def test_members_and_anchors_are_shown_rows(tmp_path: Path) -> None:
    seen = overview(tmp_path, ROWS)
    cluster = seen.duplicates[0]
    assert cluster.anchor_row is not None
    anchor = seen.rows[cluster.anchor_row]
    assert (anchor.state, anchor.address) == (ANCHOR, cluster.anchor)
    members = [seen.rows[number] for number in cluster.members]
    assert [row.address.rsplit(":", 1)[1] for row in members] == ["41", "44"]
    assert all(row.turns == anchor.turns and row.anchor == cluster.anchor for row in members)


def test_contaminated_rows_are_shown_with_the_passage(tmp_path: Path) -> None:
    item = " ".join(KITCHEN * 2)
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps({"question": item, "answer": "It is done."}) + "\n", encoding="utf-8")
    seen = overview(
        tmp_path, [*texts(20), (f"{item} please?", "Yes, gladly.")],
        steps=["decontaminate"], decontaminate={"evaluations": [str(items)]},
    )  # fmt: skip
    (number,) = seen.contaminated
    assert str(items) in seen.rows[number].detail
    assert "bread flour oven dough" in seen.rows[number].detail


def test_personal_data_are_masked_in_every_row_that_is_shown(tmp_path: Path) -> None:
    rows = [*texts(4), (f"Write to {MAIL}, please, about the ship?", f"I wrote to {MAIL} about the ship.")]
    seen = overview(tmp_path, [*rows, rows[-1], rows[-1]])
    assert MAIL not in repr(seen)
    assert "I wrote to [EMAIL] about the ship." in repr(seen)


def test_a_long_row_is_cut_and_says_so(tmp_path: Path) -> None:
    long = "bread " * 3_000
    (shown,) = overview(tmp_path, [("What is it?", long)], steps=["normalize"]).rows
    assert [len(text) for _, text in shown.turns] == [11, gather.ROW_CHARACTERS - 11]
    assert shown.cut == 11 + len(long.strip()) - gather.ROW_CHARACTERS or shown.cut == 11 + len(long) - 8_000


def test_rows_of_two_topics_are_two_topics_on_the_map_with_their_words() -> None:
    both = [f"{prompt}\n{reply}" for prompt, reply in texts(200)]
    vectors = text_vectors(both)
    topics, names = topics_of(both, vectors, seed=0)
    places = places_of(vectors, topics)
    assert np.abs(places).max() == 1
    for topic in set(topics.tolist()):  # circles do not meet: a topic's rows are nearer to its middle than any other's
        middle = places[topics == topic].mean(axis=0)
        away = np.hypot(*(places - middle).T)
        assert away[topics == topic].max() < away[topics != topic].min() * 1.5
    assert not set(topics[0::2].tolist()) & set(topics[1::2].tolist())
    for topic, name in enumerate(names):
        words = KITCHEN if topic in set(topics[0::2].tolist()) else HARBOR
        assert set(name.split(", ")) <= set(words), name


@pytest.mark.parametrize("said", [[], ["one row"], ["same", "same"], ["", " "]])
def test_maps_of_few_rows_are_whole(said: list[str]) -> None:
    vectors = text_vectors(said)
    topics, names = topics_of(said, vectors, seed=0)
    places = places_of(vectors, topics)
    assert places.shape == (len(said), 2)
    assert np.isfinite(places).all()
    assert len(topics) == len(said)
    assert len(names) == len(set(topics[topics >= 0].tolist()))


def test_rare_reasons_are_shown_whole_before_a_common_one() -> None:
    rare, common, middle = (Kind("step", "dropped", reason) for reason in ("rare", "common", "middle"))
    assert shares_of({common: 10_000, rare: 3, middle: 40}, 100) == {rare: 3, middle: 40, common: 57}
    assert shares_of({common: 5, rare: 3}, 100) == {rare: 3, common: 5}
    assert sum(shares_of({Kind("step", "dropped", str(n)): 1 for n in range(50)}, 20).values()) == 20
    assert drawn(5, 9, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]


def test_a_sample_is_bounded_and_drawn_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAP_ROWS", 10)
    rows = [*texts(60), *texts(60), ("Say more?", "I am sorry, but as an AI language model I cannot.")]
    seen = overview(tmp_path, rows)
    states = Counter(seen.rows[number].state for number in seen.map.rows.tolist())
    assert states == {KEPT: 10, "exact_duplicate": 9, "refusal": 1}
    places = [
        int(seen.rows[number].address.rsplit(":", 1)[1])
        for number in seen.map.rows.tolist()
        if seen.rows[number].state == "exact_duplicate"
    ]
    assert max(places) - min(places) > 20


def test_what_the_vectors_are_is_said(tmp_path: Path) -> None:
    assert overview(tmp_path, texts(3)).map.vectors in (HASHED, "wordllama 0.4.0.post1")


def test_a_curation_that_keeps_nothing_has_an_overview(tmp_path: Path) -> None:
    seen = overview(tmp_path, [("Say more?", "I am sorry, but as an AI language model I cannot.")] * 2)
    assert seen.after.total == 0
    assert [seen.rows[number].state for number in seen.map.rows.tolist()] == ["refusal"] * 2
