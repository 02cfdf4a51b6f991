"""What a person sees while data is curated, and its books at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType

from tutelage.curate.judge_estimate import CHARACTERS_A_TOKEN, JudgeEstimate
from tutelage.report.console.progress import Screen
from tutelage.report.numbers import duration


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


def judge_lines(estimate: JudgeEstimate) -> list[str]:
    """What asking a judge would take, as a person reads it."""
    known = f"; {estimate.answered:,} are answered" if estimate.answered else ""
    rough = f"roughly, {CHARACTERS_A_TOKEN} characters each: curate.judge.tokenizer counts them"
    by = "by the tokenizer" if estimate.counted else rough
    kept = estimate.answers_measured
    measured = f"as {kept:,} kept ones" if kept else "assumed, a sentence each"
    if estimate.cost is None or estimate.most_cost is None:
        cost = "no price is given: curate.judge.prompt_price and answer_price, of a million tokens"
    else:
        cost = f"{estimate.cost:.4g}, at most {estimate.most_cost:.4g}; requests that are repeated come on top"
    lines = [
        f"judge: {estimate.questions:,} questions about {estimate.rows:,} rows{known}",
        f"  prompts: {estimate.prompt_tokens:,} tokens ({by})",
        f"  answers: {estimate.answer_tokens:,} tokens ({measured}), at most {estimate.most_answer_tokens:,}",
        f"  cost: {cost}",
        f"  time: {_judge_time(estimate)}",
    ]
    if estimate.most_requests is not None and estimate.most_requests < estimate.questions:
        lines.append(f"  curate.judge.most_requests ends a run after {estimate.most_requests:,} of them")
    return lines


def _judge_time(estimate: JudgeEstimate) -> str:
    if estimate.seconds is None:
        each = duration(estimate.questions / estimate.parallel)
        return f"not known; {each} for each second that an answer takes, {estimate.parallel} at once"
    return f"{duration(estimate.seconds)}, {estimate.parallel} at once, if answers take as long as the kept ones"
