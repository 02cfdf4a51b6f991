"""Losses and multiple choice as people read them: figures of the file, and better or worse only where it is shown."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tutelage.report.console.measures import result_table
from tutelage.report.html.scores import score_lines
from tutelage.report.likelihoods import choice_sentence, likelihood_sentences, short_names
from tutelage.runs.losses import LossChange, LossMeasure, Mean, PlaceMeasure, Rate
from tutelage.runs.multiple_choice import ChoiceMeasure
from tutelage.runs.reading import Scores
from tutelage.runs.uncertainty import Range, ShareUncertainty, Uncertainty


def measure(verdict: str = "better") -> LossMeasure:
    before, after = Mean(2.0, 1.9, 2.1), Mean(1.0, 0.9, 1.1)
    return LossMeasure(60, 900, 0, Rate(before, after, LossChange(-1.0, -1.2, -0.8, verdict)))


def test_a_loss_stands_with_its_intervals_its_perplexity_and_its_sources() -> None:
    place = PlaceMeasure(
        measure(), {"a.jsonl": measure("not shown"), "b.jsonl": LossMeasure(1, 9, 0, Rate(Mean(800.0)))}
    )

    first, second, third = likelihood_sentences({"heldout": place}, None)

    assert first == (
        "Loss on held-out rows, nats a token: 2.000 (1.900 to 2.100) → 1.000 (0.900 to 1.100), "
        "change −1.000 (−1.200 to −0.800), better; perplexity 7.389 (6.686 to 8.166) → 2.718 (2.46 to 3.004); "
        "60 documents."
    )
    assert second.startswith("  a.jsonl: ")
    assert "not shown" in second
    assert third == "  b.jsonl: 800.000; perplexity beyond numbers; 1 document"


def test_all_four_ways_stand_side_by_side() -> None:
    shares = dict.fromkeys(("sum", "per_token", "per_byte", "answer_only"), 0.25)
    interval = ShareUncertainty(40, Range(0.1, 0.4), Range(0.3, 0.7))
    found = ChoiceMeasure(40, 0.25, shares, shares | {"sum": 0.5}, 0.6, 0.7, {"sum": interval}, shares, {"sum": 1 / 3})

    sentence = choice_sentence(found)

    assert "40 questions, chance 25.0" in sentence
    assert sentence.index("sum") < sentence.index("per token") < sentence.index("per byte (counts in the general set)")
    assert "against an answer-only prompt" in sentence
    assert sentence.index("60.0") < sentence.index("70.0")
    assert "above chance 25.0 % → 33.3 %" in sentence.replace("\N{NO-BREAK SPACE}", " ")


def test_the_held_out_loss_has_its_interval_and_verdict_in_the_table() -> None:
    result = {
        "before": {"heldout_loss": 2.0}, "after": {"heldout_loss": 1.0},
        "uncertainty": asdict(Uncertainty(0.95, 0.05, 0.8)),
        "losses": {"heldout": asdict(PlaceMeasure(measure()))},
    }  # fmt: skip

    (row,) = result_table(result).rows

    assert row == (
        "held-out loss", "2.000", "", "1.000", "", "−1.000", "−1.20…−0.80", "better",
    )  # fmt: skip


def test_the_page_says_better_only_where_the_interval_shows_it() -> None:
    sides = [Scores(None, None, value, None, {}, {}) for value in (2.0, 1.0)]
    for verdict in ("better", "not shown"):
        lines = score_lines(sides[0], sides[1], None, measure(verdict).per_token)
        line = next(line for line in lines if line.key == "heldout_loss")
        assert (line.verdict, line.before_range) == (verdict, "1.900 to 2.100")
        assert line.change_range == "−1.200 to −0.800"


@pytest.mark.parametrize(
    ("sources", "shown"),
    [
        (("/a/b/x.jsonl", "/a/c/y.jsonl"), ("x.jsonl", "y.jsonl")),
        (("/a/b/x.jsonl", "/a/c/x.jsonl"), ("b/x.jsonl", "c/x.jsonl")),
        (("/a/b/x.jsonl", "data/y.jsonl", "owner/name"), ("x.jsonl", "data/y.jsonl", "owner/name")),
        (("/a/b/x.jsonl", "b/x.jsonl"), ("x.jsonl", "b/x.jsonl")),
        (("/x.jsonl", "x.jsonl"), ("/x.jsonl", "x.jsonl")),
        ((), ()),
    ],
)
def test_sources_are_called_by_the_end_that_tells_them_apart(sources: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert tuple(short_names(sources).values()) == shown
