"""The dial in a terminal of 80 columns: what each value gained and forgot, with intervals, and all measures."""

from __future__ import annotations

import io

from rich.console import Console

from tests.report.html.test_dial_page import dial_with, rows_of
from tutelage.report.console.dial import change_table, dial_table
from tutelage.report.console.measures import Drawn, MeasuresTable


def drawn(table: MeasuresTable) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(Drawn(table, title="run"))
    text: str = console.file.getvalue()  # type: ignore[attr-defined] # the StringIO from above
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def test_changes_keep_their_intervals_in_80_columns() -> None:
    text = drawn(change_table(dial_with()))
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}

    assert lines["value"] == ["value", "gained,", "points", "95", "%", "forgot,", "points", "95", "%"]
    assert lines["0.5"] == ["0.5", "+75.0", "+65…+85", "6.0", "+3…+9", "knee"]
    assert lines["0"] == ["0", "0.0", "0.0", "base"]
    assert lines["1"][-1] == "tuned"


def test_losses_and_divergences_are_in_nats() -> None:
    text = drawn(change_table(dial_with(gain="heldout_loss", forgetting="kl_task")))

    assert "gained, nats" in text
    assert "0.5 +0.750 +0.650…+0.850 0.060 0.030…0.090 knee" in " ".join(text.split())
    assert "forgot" not in drawn(change_table(dial_with(forgetting=None)))


def test_all_measures_have_a_column_for_each_value() -> None:
    dial = dial_with()
    table = dial_table(rows_of(dial))

    assert [heading for heading in table.headings if "%" not in heading] == [
        "",
        "0",
        "0.25",
        "0.5",
        "0.75",
        "1",
        "1.25",
    ]
    rows = {row[0]: row for row in table.rows}
    assert rows["whole row exact"][1:3] == ("40.0\u00a0%", "31–52")
    assert rows["KL, task prompts"][1:3] == ("0.125", "0.100…0.200")
    assert max(map(len, drawn(table).splitlines())) <= 80
