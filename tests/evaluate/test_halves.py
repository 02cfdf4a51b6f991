"""The split of a general set: no prompt on both sides, topics even, the same for a seed; and what a half can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.evaluate.checks import PlainText
from tutelage.evaluate.general import GeneralItem, read_general
from tutelage.evaluate.halves import FEWEST_FOR_KEPT, as_lines, halves_of, what_it_shows
from tutelage.evaluate.packaged_sets import PROBES, packaged_files
from tutelage.evaluate.statistics import Transitions, judge_changes
from tutelage.types import Address


def items_of(prompts: Sequence[tuple[str, str]]) -> list[GeneralItem]:
    check = PlainText(kind="plain_text")
    return [
        GeneralItem(Address("set.jsonl", line, "line"), topic, prompt, (check,))
        for line, (topic, prompt) in enumerate(prompts, start=1)
    ]


def test_the_probes_are_split_evenly_in_every_topic() -> None:
    items = [item for file in packaged_files(PROBES) for item in read_general(str(file.path))]

    halves = halves_of(items, seed=0)

    assert abs(len(halves.choice) - len(halves.report)) <= 1
    assert all(abs(chosen_by - reported) <= 1 for chosen_by, reported in halves.topics.values())
    assert len(halves.topics) == 10
    assert not {item.prompt for item in halves.choice} & {item.prompt for item in halves.report}
    assert sorted(map(str, (item.address for item in (*halves.choice, *halves.report)))) == sorted(
        str(item.address) for item in items
    )


def test_items_of_one_source_stay_together_and_so_do_those_that_a_prompt_joins() -> None:
    items = items_of([("t", f"question {number}") for number in range(40)] + [("t", "question 0")])
    items = [replace(item, source=f"passage {place // 4}") for place, item in enumerate(items)]

    for seed in range(5):
        halves = halves_of(items, seed=seed)
        choice, report = ({item.source for item in half} for half in (halves.choice, halves.report))
        assert not choice & report
        assert abs(len(halves.choice) - len(halves.report)) <= 5
        assert (items[0] in halves.choice) == (items[40] in halves.choice), "one prompt, and two passages by it"

    with pytest.raises(DataError, match="without a prompt or a source in common"):
        halves_of(items[:4], seed=0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz ", max_size=3)), max_size=30), st.integers(0, 5))
def test_a_prompt_is_never_on_both_sides(prompts: list[tuple[str, str]], seed: int) -> None:
    items = items_of(prompts)
    distinct = {" ".join(prompt.split()) for _, prompt in prompts}
    if len(distinct) < 2:
        with pytest.raises(DataError, match="cannot be split"):
            halves_of(items, seed=seed)
        return

    halves = halves_of(items, seed=seed)

    sides = [{" ".join(item.prompt.split()) for item in half} for half in (halves.choice, halves.report)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert len(halves.choice) + len(halves.report) == len(items)
    assert halves_of(items, seed=seed) == halves


def test_another_seed_splits_otherwise() -> None:
    items = items_of([("a", f"prompt {number}") for number in range(40)])

    assert halves_of(items, seed=0) != halves_of(items, seed=1)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Also items of IFEval's form, and those with a reference; an item without an id keeps where it came from."""
    items = [item for file in packaged_files(PROBES) for item in read_general(str(file.path))]
    ifeval = tmp_path / "ifeval.jsonl"
    ifeval.write_text(
        '{"key": 7, "prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}\n'
        '{"prompt": "é?", "topic": "t", "checks": [{"kind": "plain_text"}]}\n',
        encoding="utf-8",
    )
    items += read_general(str(ifeval))

    (tmp_path / "half.jsonl").write_text(as_lines(items), encoding="utf-8")
    again = read_general(str(tmp_path / "half.jsonl"))

    assert [(item.topic, item.prompt, item.checks, item.reference) for item in again] == [
        (item.topic, item.prompt, item.checks, item.reference) for item in items
    ]
    assert [item.id for item in again] == [item.name for item in items]
    assert again[-1].id == f"{ifeval}:2"


def test_so_many_items_are_the_fewest_that_show_kept() -> None:
    verdicts = [
        judge_changes({"general": Transitions(count, 0, 0, 0)})["general"].verdict
        for count in (FEWEST_FOR_KEPT - 1, FEWEST_FOR_KEPT)
    ]

    assert verdicts == ["not shown", "kept"]


def test_a_half_says_what_it_cannot_show() -> None:
    few, many = what_it_shows(24, 0.03), what_it_shows(500, 0.1)

    assert "each 4.2 points" in few
    assert "about 31.0 points, so one of 3 points may be there and not be shown" in few
    assert "fewer than 73" in few
    assert "about 5.8 points" in many
    assert "may be there" not in many
    assert "no loss of so few items could be shown" in what_it_shows(2, 0.5)
