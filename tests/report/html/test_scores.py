from __future__ import annotations

import pytest

from tutelage.report.html.scores import ScoreLine, gained_and_forgot, outcome, progress, score_lines
from tutelage.runs.reading import Scores


def scores(exact_match=None, valid_json=None, heldout_loss=None, general=None, fields=None, others=None):
    return Scores(exact_match, valid_json, heldout_loss, general, fields or {}, others or {})


def plain(text):
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def test_the_outcome_is_one_sentence_of_the_numbers():
    lines = score_lines(scores(0.0, 0.3, 2.3104, 0.4133), scores(0.81, 1.0, 0.1202, 0.3878))
    assert plain(outcome(lines)) == (
        "Whole-row exact match 0.0 % → 81.0 %; held-out loss 2.310 → 0.120; general set 41.3 % → 38.8 %."
    )


def test_what_was_not_measured_is_said_or_left_out():
    assert outcome(score_lines(scores(), scores())) == ""
    assert outcome(score_lines(scores(), scores(heldout_loss=0.5))) == "Held-out loss not measured → 0.500."


@pytest.mark.parametrize(
    ("kind", "before", "after", "verdict", "change"),
    [
        ("share", 0.2, 0.5, "better", "+30.0 points"),
        ("share", 0.5, 0.2, "worse", "-30.0 points"),
        ("share", 0.5, 0.50001, "same", "0.0 points"),
        ("loss", 2.0, 1.5, "better", "-0.500"),
        ("loss", 1.5, 2.0, "worse", "+0.500"),
        ("loss", 1.5, float("nan"), "unknown", "unknown"),
        ("share", None, 0.2, "unknown", "unknown"),
        ("number", 1.0, 3.0, "unknown", "+2"),
    ],
)
def test_shares_are_better_high_and_losses_low(kind, before, after, verdict, change):
    line = ScoreLine("key", "Name", kind, before, after)
    assert line.verdict == verdict
    assert plain(line.change_text) == change


def test_losses_are_told_as_plainly_as_gains():
    lines = score_lines(scores(0.1, general=0.4), scores(0.3, general=0.3))
    gained, forgot = gained_and_forgot(lines)
    assert [plain(line) for line in gained] == ["Whole-row exact match +20.0 points"]
    assert [plain(line) for line in forgot] == ["General set -10.0 points"]


def test_forgetting_that_was_not_measured_is_not_called_none():
    _, forgot = gained_and_forgot(score_lines(scores(0.1), scores(0.3)))
    assert any("not measured" in line for line in forgot)


def test_fields_of_either_side_and_unknown_figures_are_kept():
    before, after = scores(fields={"a": 0.1}), scores(fields={"b": 0.2}, others={"bleu": 31.25})
    by_key = {line.key: line for line in score_lines(before, after)}
    assert by_key["field-a"].after_text == "not measured"
    assert by_key["field-b"].before_text == "not measured"
    assert by_key["bleu"].after_text == "31.25"


def test_progress_says_how_far_the_run_is():
    assert progress(None, 1, 2.5, None) == "The run has no result yet: 1 step recorded; last training loss 2.500."
