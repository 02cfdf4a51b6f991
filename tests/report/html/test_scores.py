from __future__ import annotations

from dataclasses import replace

import pytest

from tutelage.report.html.scores import ScoreLine, gained_and_forgot, outcome, progress, score_lines
from tutelage.runs.reading import Scores
from tutelage.runs.uncertainty import Range, ShareChange, ShareUncertainty, Uncertainty


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


def judged(verdict, low, high, smallest=0.145):
    change = ShareChange(Range(low, high), 8, 4, 0.39, 1.0, verdict, smallest)
    return ShareUncertainty(80, Range(0.311, 0.522), Range(0.357, 0.571), change)


@pytest.mark.parametrize("verdict", ["gained", "lost", "kept", "not shown"])
def test_a_share_with_an_interval_has_the_verdict_of_the_file(verdict):
    assert ScoreLine("key", "Name", "share", 0.2, 0.5, judged(verdict, 0.1, 0.4)).verdict == verdict


def test_intervals_are_said_beside_the_figures():
    line = ScoreLine("general", "General set", "share", 0.412, 0.462, judged("not shown", -0.039, 0.145))
    assert plain(line.before_range) == "31.1 to 52.2 %"
    assert plain(line.after_range) == "35.7 to 57.1 %"
    assert plain(line.change_range) == "-3.9 to +14.5"
    assert plain(line.verdict_note) == "8 fixed, 4 broken of 80 items; they would show 14.5 points or more"
    few = ScoreLine("general", "General set", "share", 0.4, 0.4, judged("not shown", -0.9, 0.9, None))
    assert plain(few.verdict_note) == "8 fixed, 4 broken of 80 items; so few can show no change"
    kept = ScoreLine("general", "General set", "share", 0.4, 0.4, judged("kept", -0.01, 0.01))
    assert plain(kept.verdict_note) == "8 fixed, 4 broken of 80 items"


def test_only_what_an_interval_shows_is_gained_or_forgotten():
    shares = {"exact_match": judged("gained", 0.1, 0.4), "general": judged("not shown", -0.3, 0.02)}
    uncertainty = Uncertainty(0.95, 0.05, 0.8, shares, {"a": judged("not shown", -0.1, 0.3)})
    before, after = scores(0.1, general=0.4, fields={"a": 0.1}), scores(0.3, general=0.3, fields={"a": 0.2})

    gained, forgot = gained_and_forgot(score_lines(before, after, uncertainty))

    assert [plain(line) for line in gained] == ["Whole-row exact match +20.0 points"]
    assert [plain(line) for line in forgot] == [
        "Nothing is shown to have got worse.",
        "General set -10.0 points: not shown, 8 fixed, 4 broken of 80 items; they would show 14.5 points or more.",
    ]


def test_a_loss_that_is_not_shown_is_worse_without_an_interval_alone():
    lines = score_lines(scores(general=0.4), scores(general=0.3))
    assert next(line for line in lines if line.key == "general").verdict == "worse"


def test_capabilities_stand_behind_the_main_figures():
    uncertainty = Uncertainty(0.95, 0.05, 0.8, capabilities={"code": judged("lost", -0.4, -0.1)})
    before = replace(scores(general=0.5, fields={"a": 0.1}), capabilities={"code": 0.6, "facts": 0.5})
    after = replace(scores(general=0.4, fields={"a": 0.2}), capabilities={"code": 0.3, "facts": 0.5})

    lines = score_lines(before, after, uncertainty)

    assert [line.key for line in lines][-3:] == ["capability-code", "capability-facts", "field-a"]
    code = next(line for line in lines if line.key == "capability-code")
    assert (code.name, code.before, code.after, code.verdict) == ("Capability code", 0.6, 0.3, "lost")
    assert [line.split(" −")[0] for line in gained_and_forgot(lines)[1]] == ["General set", "Capability code"]
