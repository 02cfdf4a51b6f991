"""Loops, repetition and the shares of replies in good health, by cases worked by hand; and what is shown of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.health import HEALTH, health_figures, health_outcomes, loops, repetition
from tutelage.evaluate.suite import Metrics
from tutelage.evaluate.uncertainty import uncertainty_of
from tutelage.generate.requests import End
from tutelage.report.console.measures import before_after
from tutelage.report.health import health_sentence
from tutelage.report.html.scores import gained_and_forgot, score_lines
from tutelage.report.numbers import GAP
from tutelage.runs.fields import Fields
from tutelage.runs.health import read_health
from tutelage.runs.reading import Scores
from tutelage.runs.uncertainty import uncertainty_in
from tutelage.types import Address, Prompt

STOP: End = (9, "stop_token")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("The cat sat down. " * 3, True),  # three times 18 characters
        ("The cat sat down. " * 2, False),  # twice
        ("First. " + "The cat sat down. " * 2 + "The cat", False),  # 18 + 18 + 7 are not yet three times
        ("First. " + "The cat sat down. " * 3 + "The cat s", True),  # cut in the middle of the next
        ("The cat sat down. " * 9 + "Then it left.", False),  # it found a way out
        ("no " * 9, False),  # 26 characters: may be meant
        ("no " * 11, True),  # 32 characters
        ("=" * 29, False),
        ("=" * 30, True),
        ("猫は座った。" * 5, True),
        ('{"a": 1}, ' * 12 + "\n\n", True),  # white space at the end counts for nothing
        ("1. cat 2. dog 3. cow 4. hen 5. pig 6. fox 7. owl", False),
        ("", False),
    ],
)
def test_a_reply_loops_that_ends_in_the_same_piece_three_times(text: str, looping: bool) -> None:
    assert loops(text) is looping


def test_the_shortest_period_is_not_needed() -> None:
    """By another way: any cut of the text that repeats."""
    random = np.random.default_rng(3)
    for _ in range(400):
        text = "x" + "".join(random.choice(list("ab"), random.integers(1, 14))) * int(random.integers(1, 9))
        text = text[: int(random.integers(1, len(text) + 1))]
        ends_so = any(
            len(text) >= span and text[-span:] == (text[-period:] * span)[-span:]
            for period in range(1, len(text) + 1)
            for span in [max(3 * period, 30)]
        )
        assert loops(text) is ends_so, text


def test_repetition_is_that_of_welleck() -> None:
    # Ten words, seven runs of four: abcd bcda cdab dabc abcd bcda cdab, of which four differ.
    assert repetition("a b c d a b c d a b") == pytest.approx(3 / 7)
    assert repetition("a b c d e f g h") == 0.0
    assert repetition("a b c") == 0.0
    assert repetition("猫猫猫猫猫") == pytest.approx(1 / 2)  # two runs of four signs, both the same
    assert repetition("no, no, no, no") == pytest.approx(2 / 4)  # marks are words: seven of them, four runs


def test_no_demonstration_of_the_example_data_loops() -> None:
    replies = []
    for path in sorted((ROOT / "datasets").rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            messages = row.get("messages", [])
            replies += [message["content"] for message in messages if message["role"] == "assistant"]
            replies += [row["reference"]] if isinstance(row.get("reference"), str) else []

    assert len(replies) > 500
    assert not any(map(loops, replies))


def task(*references: str) -> list[Prompt]:
    return [
        Prompt(Address("task.jsonl", at), np.zeros(1, dtype=np.int32), "", text) for at, text in enumerate(references)
    ]


ENGLISH = "Please tell me in a few words how the eggs are best boiled in the water."
GERMAN = "Die Eier werden am besten sieben Minuten lang im Wasser gekocht, und dann ist es gut."
ASKED = [GeneralItem(Address("general.jsonl", at), "", text, ()) for at, text in enumerate([ENGLISH, ENGLISH, "2+2?"])]


def test_each_reply_is_in_good_health_or_not_by_each_question() -> None:
    replies = {"task": ['{"a": 1}', " \n"], "general": [GERMAN, "ha " * 20, ENGLISH]}
    ends: dict[str, list[End]] = {"task": [STOP, (0, "stop_token")], "general": [STOP, (20, "length"), STOP]}

    found = health_outcomes(task('{"a": 1}', '{"a": 2}'), ASKED, replies, ends)

    assert found == {
        f"{HEALTH}task ended": [True, True],
        f"{HEALTH}task not_empty": [True, False],
        f"{HEALTH}task no_loop": [True, True],
        f"{HEALTH}general ended": [True, False, True],
        f"{HEALTH}general not_empty": [True, True, True],
        f"{HEALTH}general no_loop": [True, False, True],
        # Of the second reply nothing tells the language, of the third none is asked for.
        f"{HEALTH}general same_language": [False, None, None],
    }
    figures = health_figures(replies, ends, found)
    assert figures["task"] == {
        "ended": 1.0, "not_empty": 0.5, "no_loop": 1.0, "repetition": 0.0, "median_tokens": 4.5, "tokens_90": 9.0,
    }  # fmt: skip
    assert figures["general"]["same_language"] == 0.0
    assert figures["general"]["no_loop"] == pytest.approx(2 / 3)
    assert figures["general"]["repetition"] == pytest.approx((16 / 17) / 3)  # 17 runs of four, all the same


def test_the_language_of_a_demonstration_is_the_one_to_keep() -> None:
    found = health_outcomes(task(GERMAN, GERMAN), [], {"task": [GERMAN, ENGLISH]}, {})

    assert found[f"{HEALTH}task same_language"] == [True, False]
    assert f"{HEALTH}task ended" not in found, "how they ended is not known"


def test_ninety_percent_of_replies_have_at_most_so_many_tokens() -> None:
    ends: list[End] = [(count, "stop_token") for count in (10, 9, 8, 7, 6, 5, 4, 3, 2, 100)]

    figures = health_figures({"task": ["x"] * 10}, {"task": ends}, {})

    assert (figures["task"]["median_tokens"], figures["task"]["tokens_90"]) == (6.5, 10.0)


def test_missing_replies_have_no_health() -> None:
    assert health_outcomes(task("x"), ASKED, {"task": (), "general": ("one",)}, {}) == {}
    assert health_figures({"task": ()}, {}, {}) == {}


def measured(ended: int, looping: int) -> tuple[dict[str, list[bool | float | None]], Metrics]:
    """Of 40 replies."""
    replies = {"general": [*(["ha " * 20] * looping), *(["All is well."] * (40 - looping))]}
    ends: dict[str, list[End]] = {"general": [*([STOP] * ended), *([(96, "length")] * (40 - ended))]}
    outcomes = health_outcomes([], ASKED[:1] * 40, replies, ends)
    return outcomes, replace(Metrics(general=0.5), health=health_figures(replies, ends, outcomes))


def test_more_loops_and_fewer_ends_are_lost_and_fewer_are_gained() -> None:
    (outcomes_well, well), (outcomes_ill, ill) = measured(40, 0), measured(5, 20)

    shares = uncertainty_of(outcomes_well, outcomes_ill).health
    assert {name: share.change.verdict for name, share in shares.items() if share.change} == {
        "general ended": "lost",
        "general not_empty": "not shown",
        "general no_loop": "lost",
    }
    assert shares["general ended"].change is not None
    assert (shares["general ended"].change.fixed, shares["general ended"].change.broken) == (0, 35)
    backwards = uncertainty_of(outcomes_ill, outcomes_well).health["general ended"].change
    assert backwards is not None
    assert backwards.verdict == "gained"

    uncertainty = uncertainty_in(
        json.loads(json.dumps({"uncertainty": asdict(uncertainty_of(outcomes_well, outcomes_ill))}))
    )
    assert uncertainty is not None
    assert (uncertainty.judged, uncertainty.has_verdicts) == (0, True)
    assert uncertainty.families == "3 shares of the health of replies"
    table = before_after(asdict(well), asdict(ill), uncertainty)
    assert [(row[0], row[1], row[3], row[-1]) for row in table.rows[1:]] == [
        ("general: ended", f"100.0{GAP}%", f"12.5{GAP}%", "lost"),
        ("general: no loop", f"100.0{GAP}%", f"50.0{GAP}%", "lost"),
    ]
    assert table.notes[0] == (
        f"Tokens in replies, the median (90{GAP}% have at most): general set 9 (9) → 96 (96), "
        f"repeated 0.0{GAP}% → 47.1{GAP}%.".replace(f"90{GAP}%", "90 %")
    )


def test_where_all_is_well_a_terminal_gets_no_rows() -> None:
    outcomes, well = measured(40, 0)

    table = before_after(asdict(well), asdict(well), uncertainty_of(outcomes, outcomes))

    assert [row[0] for row in table.rows] == ["general set"]
    assert table.notes[0].endswith(f"general set 9 (9) → 9 (9); at least 95.0{GAP}% are in good health.")


def test_a_page_lists_every_share_and_says_which_got_worse() -> None:
    (outcomes_well, well), (outcomes_ill, ill) = measured(40, 0), measured(5, 20)
    before, after = (
        Scores(None, None, None, 0.5, {}, {}, health=read_health(Fields(asdict(one)["health"], "", [])))
        for one in (well, ill)
    )

    lines = score_lines(before, after, uncertainty_of(outcomes_well, outcomes_ill))

    assert [line.name for line in lines[-3:]] == [
        "Replies that the model ended, general set",
        "Replies that are not empty, general set",
        "Replies without a loop at the end, general set",
    ]
    better, worse = gained_and_forgot(lines)
    assert better == ("Nothing is shown to have got better.",)
    assert worse[0].startswith("Replies that the model ended, general set")
    assert health_sentence({}, {}) is None, "runs of older versions"
    assert health_sentence({"task": {"ended": 1.0}}, {}) is None
