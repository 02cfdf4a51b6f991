"""The table of measures as people see it: intervals, verdicts, and the columns that a terminal has."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from tutelage.report.console.measures import Drawn, MeasuresTable, before_after, several_models
from tutelage.report.console.terminal import Terminal
from tutelage.runs.uncertainty import Range, ShareChange, ShareUncertainty, Uncertainty

BEFORE: dict[str, Any] = {
    "exact_match": 0.0, "valid_json": 0.25, "general": 0.5, "heldout_loss": 1.894,
    "fields": {"a long name of a field": 0.1}
}  # fmt: skip
AFTER: dict[str, Any] = {
    "exact_match": 1.0, "valid_json": 1.0, "general": 0.4, "heldout_loss": 0.034,
    "fields": {"a long name of a field": 1.0}
}  # fmt: skip


def share(verdict: str, low: float, high: float, smallest: float | None = 0.145) -> ShareUncertainty:
    change = ShareChange(Range(low, high), 1, 9, 0.02, 0.06, verdict, smallest)
    return ShareUncertainty(80, Range(0.0, 0.046), Range(0.954, 1.0), change)


FOUND = Uncertainty(
    0.95,
    0.05,
    0.8,
    {"exact_match": share("gained", 0.91, 1.0), "general": share("not shown", -0.2, 0.004)},
    dict.fromkeys(("a long name of a field", "another"), share("not shown", -1.0, -0.97, None)),
)


def printed(table: MeasuresTable, width: int) -> list[str]:
    stream = io.StringIO()
    Terminal(file=stream, width=width).print(Drawn(table, title="run"))
    return stream.getvalue().replace("\u00a0", " ").replace("\u2212", "-").splitlines()


def line_of(lines: list[str], name: str) -> list[str]:
    return next(line for line in lines if line.startswith(name)).removeprefix(name).split()


def test_eighty_columns_hold_all() -> None:
    lines = printed(before_after(BEFORE, AFTER, FOUND), 80)

    assert max(map(len, lines)) <= 80
    assert line_of(lines, "whole row exact") == [
        "0.0", "%", "0–5", "100.0", "%", "95–100", "+100.0", "+91…+100", "gained"
    ]  # fmt: skip
    assert line_of(lines, "general set")[-4:] == ["-10.0", "-20…+0", "not", "shown"]
    assert line_of(lines, "held-out loss") == ["1.894", "0.034", "-1.860"]
    assert line_of(lines, "valid JSON") == ["25.0", "%", "100.0", "%", "+75.0"]


def test_notes_say_what_would_have_been_shown() -> None:
    told = " ".join(" ".join(printed(before_after(BEFORE, AFTER, FOUND), 80)).split())

    assert "Holm's adjustment for 4 changes. Kept: within 5.0 points" in told
    assert "in 80 % of such runs: general set 14.5; a long name of a field, another none (80 items)." in told


def test_a_narrow_terminal_keeps_the_change_and_the_verdict() -> None:
    lines = printed(before_after(BEFORE, AFTER, FOUND), 64)

    assert max(map(len, lines)) <= 64
    assert line_of(lines, "whole row exact") == ["0.0", "%", "100.0", "%", "+100.0", "+91…+100", "gained"]


def test_runs_of_older_versions_have_two_columns() -> None:
    table = before_after(BEFORE, AFTER)

    assert table.headings == ("", "before", "after")
    assert table.notes == ()
    assert line_of(printed(table, 80), "general set") == ["50.0", "%", "40.0", "%"]


def test_what_was_measured_on_one_side_has_no_change() -> None:
    lines = printed(before_after({"fields": {}}, AFTER, Uncertainty(0.95, 0.05, 0.8)), 80)

    assert line_of(lines, "general set") == ["-", "40.0", "%"]
    assert not any("Holm" in line for line in lines)


def test_models_beside_one_another_have_intervals_where_there_is_room() -> None:
    models = {"base": BEFORE, "tuned": AFTER}
    table = several_models(models, dict.fromkeys(models, FOUND))

    assert table.headings == ("", "base", "95\u00a0%", "tuned", "95\u00a0%")
    assert line_of(printed(table, 80), "whole row exact") == ["0.0", "%", "95–100", "100.0", "%", "95–100"]
    assert line_of(printed(table, 40), "whole row exact") == ["0.0", "%", "100.0", "%"]
    assert several_models(models).headings == ("", "base", "tuned")


def test_capabilities_stand_under_the_general_set_with_their_own_intervals() -> None:
    named_like_a_field = dict.fromkeys(("a long name of a field", "code"), share("lost", -0.4, -0.1))
    found = replace(FOUND, capabilities=named_like_a_field)
    before = BEFORE | {"capabilities": {"a long name of a field": 0.5, "code": 0.4}}
    after = AFTER | {"capabilities": {"a long name of a field": 0.5, "code": 0.2}}

    table = before_after(before, after, found)
    beside = several_models({"base": before, "tuned": after}, {"tuned": replace(found, fields={})})

    names = [row[0] for row in table.rows]
    assert names[names.index("general set") + 1 :][:2] == ["  a long name of a field", "  code"]
    assert line_of(printed(table, 80), "  code")[-3:] == ["-20.0", "-40…-10", "lost"]
    assert "for 4 changes, 2 capabilities, each group by itself" in " ".join(table.notes)
    rows = [row for row in beside.rows if row[0] == "  a long name of a field"]
    assert [row[-1] for row in rows] == ["", "95–100"]  # the field's, then the capability's


def test_capabilities_of_one_side_alone_are_shown() -> None:
    table = before_after(BEFORE, AFTER | {"capabilities": {"code": 0.25}})

    assert line_of(printed(table, 80), "  code") == ["-", "25.0", "%"]
