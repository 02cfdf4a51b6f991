"""What a person sees while a run goes on: one line a stage, a progress bar with loss, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tutelage.report.console.terminal import printable
from tutelage.report.intermediate import intermediate_sentence
from tutelage.report.numbers import duration
from tutelage.runs.metrics_log import HeldoutRecord, MeasuredRecord, Record, RowsRecord

PLAIN_LINE_EVERY = 10
"""Steps between lines where there is no terminal to draw a bar on."""
PLAIN_COUNT_SECONDS = 30.0
"""Between lines about how much is done, there."""
NARROWEST_BAR = 76
"""Columns that the shortest bar takes with its numbers, a held-out loss among them; below, lines are told instead."""
ROOM_FOR_ALL = 110
SHORT_BAR = 8


class Screen:
    """Where a run reports to.

    Args:
        console: a `Terminal`, or any rich console; one that is quiet makes the whole screen quiet.
            Where it is not a terminal, bars become plain lines, so that a log file stays readable.
        most_lines: of these about as many for all steps; None writes one every few steps, however many they are.
        bars: False draws none, as where colors are shown and a line cannot be gone back to.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        console: Console,
        *,
        most_lines: int | None = None,
        bars: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self._most_lines, self._bars, self._clock = console, most_lines, bars, clock
        self._training_bar: Progress | None = None

    def log(self, text: str) -> None:
        """One line, printed as it is and never folded."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    @property
    def _draws_bars(self) -> bool:
        """Whether a bar can be drawn over and over: not in a file, nor where a line cannot be gone back to."""
        return (
            self._bars
            and self.console.is_terminal
            and not self.console.is_dumb_terminal
            and self.console.width >= NARROWEST_BAR
        )

    @contextmanager
    def counting(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with the number of things done since the last call; of nothing, nothing is shown."""
        if total == 0:
            yield lambda _done: None
            return
        if not self._draws_bars:
            self.log(f"{title}: {total}")
            yield self._plain_count(total)
            return
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        training_bar = self._training_bar
        if training_bar is not None:
            training_bar.stop()  # one bar at a time can be drawn over
        try:
            with bar:
                task = bar.add_task(title, total=total)
                yield lambda done: bar.advance(task, done)
        finally:
            if training_bar is not None:
                training_bar.start()

    def _plain_count(self, total: int) -> Callable[[int], None]:
        """Says now and then how many are done and how long the rest will take, at the speed since it said so last."""
        count, said_count = 0, 0
        said_at: float | None = None

        def advance(done: int) -> None:
            nonlocal count, said_count, said_at
            count += done
            now = self._clock()
            if said_at is None:  # what was there before it began, which says nothing of its speed
                said_count, said_at = count, now
            elif now - said_at >= PLAIN_COUNT_SECONDS and said_count < count < total:
                seconds_left = (total - count) * (now - said_at) / (count - said_count)
                self.log(f"  {count}/{total}, {duration(seconds_left)} left")
                said_count, said_at = count, now

        return advance

    @contextmanager
    def training(self, steps: int, done: int) -> Iterator[Callable[[Record], None]]:
        """Yield a watcher for the records of the loop."""
        if not self._draws_bars:
            yield self._plain_line(steps)
            return
        numbers = (MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"))
        remaining_columns = (TextColumn("left"), TimeRemainingColumn())
        columns: tuple[ProgressColumn, ...] = (BarColumn(bar_width=SHORT_BAR), *numbers, *remaining_columns)
        if self.console.width >= ROOM_FOR_ALL:
            columns = (TextColumn("Training"), BarColumn(), *numbers, TimeElapsedColumn(), *remaining_columns)
        bar = Progress(*columns, console=self.console)
        heldout = ""

        def watch(record: Record) -> None:
            nonlocal heldout
            if isinstance(record, RowsRecord):
                self._say_smaller(record)
                return
            if isinstance(record, HeldoutRecord):
                heldout = f"  held-out {record.heldout_loss:.3f}"
                return
            if isinstance(record, MeasuredRecord):
                self._say_measured(record, steps)
                return
            numbers = f"loss {record.loss:.3f}{heldout}  {record.tokens_per_second:.0f} tok/s"
            bar.update(task, completed=record.step, numbers=numbers)

        self._training_bar = bar
        try:
            with bar:
                task = bar.add_task("train", total=steps, completed=done, numbers="")
                yield watch
        finally:
            self._training_bar = None

    def _say_measured(self, record: MeasuredRecord, steps: int) -> None:
        self.log(f"step {record.step}/{steps}  {intermediate_sentence(record.measured)}")

    def _say_smaller(self, record: RowsRecord) -> None:
        self.log(
            f"step {record.step}: memory ran out; it starts again, and from now on rows have at most "
            f"{record.row_tokens:,} tokens (more of them a step, the same loss and gradient). To begin so: "
            f"pack.row_tokens={record.row_tokens}"
        )

    def _plain_line(self, steps: int) -> Callable[[Record], None]:
        every = PLAIN_LINE_EVERY if self._most_lines is None else max(PLAIN_LINE_EVERY, steps // self._most_lines)

        def watch(record: Record) -> None:
            if isinstance(record, RowsRecord):
                self._say_smaller(record)
            elif isinstance(record, HeldoutRecord):
                self.log(f"step {record.step}/{steps}  held-out loss {record.heldout_loss:.4f}")
            elif isinstance(record, MeasuredRecord):
                self._say_measured(record, steps)
            elif record.step % every == 0 or record.step in (1, steps):
                remaining_columns = record.elapsed_seconds / record.step * (steps - record.step)
                self.log(
                    f"step {record.step}/{steps}  loss {record.loss:.4f}  lr {record.learning_rate:.2e}  "
                    f"{record.tokens_per_second:.0f} tok/s  {remaining_columns:.0f} s left"
                )

        return watch
