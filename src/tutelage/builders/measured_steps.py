"""Settings -> after which steps a model is measured while it trains; without torch, for a dry run."""

from __future__ import annotations

from tutelage.config import Settings

MOST_NAMED = 8


def measured_steps(settings: Settings, steps: int) -> frozenset[int]:
    """After which steps of a run of `steps` its model is measured.

    After the last step all is measured anyway, so it counts only where the run may end with earlier weights for what it
    forgot.
    """
    evaluate = settings.evaluate
    due = {max(1, round(at * steps)) if at < 1 else int(at) for at in evaluate.measure_at}
    if evaluate.measure_every is not None:
        due |= set(range(evaluate.measure_every, steps, evaluate.measure_every))
    with_last = {steps} if settings.train.early_stopping_forgetting is not None else set()
    return frozenset({step for step in due if step < steps} | with_last)


def measured_line(settings: Settings, steps: int) -> str:
    """When a run of `steps` measures its model, for people."""
    due = sorted(measured_steps(settings, steps))
    parts = ["before training"] if settings.evaluate.before else []
    if due:
        named = ", ".join(map(str, due[:MOST_NAMED])) + (", ..." if len(due) > MOST_NAMED else "")
        parts.append(f"after step {named}" if len(due) == 1 else f"{len(due)} times on the way (steps {named})")
    return ", ".join([*parts, "after training"])
