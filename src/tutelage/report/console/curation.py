"""What a person sees while data is curated, and its books at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType

from tutelage.report.console.progress import Screen


class StageBars:
    """A bar, or lines, for each stage of a curation, with the time that is left of it.

    Args:
        screen: where they are shown.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen, self._stack = screen, ExitStack()
        self._title: str | None = None
        self._advance: Callable[[int], None] = lambda _done: None
        self._done = 0

    def __enter__(self) -> StageBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def show(self, title: str, done: int, total: int | None) -> None:
        """Show how far a stage is; a total of None is not known, and the rows are counted."""
        if title != self._title:
            self._stack.close()
            self._title, self._done = title, 0
            self._advance = lambda _done: None
            if total:
                self._advance = self._stack.enter_context(self._screen.counting(title, total))
            elif total is None:
                self._screen.log(title)
        if done > self._done:
            self._advance(done - self._done)
            self._done = done


def step_lines(steps: Iterable[tuple[str, str, bool]]) -> list[str]:
    """The list of steps: name, whether it is on, what it does."""
    return [f"{name:<21} {'on ' if is_on else 'off'}  {sentence}" for name, sentence, is_on in steps]
