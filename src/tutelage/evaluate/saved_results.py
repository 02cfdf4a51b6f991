"""`before.json` and `after.json`: what a model was measured at, with every reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import cause_of
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.runs import folder as run_files
from tutelage.runs.divergence import divergence_in
from tutelage.runs.losses import losses_in
from tutelage.runs.multiple_choice import scores_in
from tutelage.runs.unchecked import unchecked_in

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged file raises; the last three come of another version, too."""


def write_eval_result(path: Path, eval_result: EvalResult) -> None:
    """Write it aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    run_files.write_json(path, eval_result_entry(eval_result))


def eval_result_entry(eval_result: EvalResult) -> dict[str, Any]:
    """As plain values."""
    return {
        "measures": asdict(eval_result.measures),
        "task": list(eval_result.task_replies),
        "general": list(eval_result.general_replies),
        "failed": dict(eval_result.failed),
        "divergence": {place: asdict(measure) for place, measure in eval_result.divergence.items()},
        "outcomes": dict(eval_result.outcomes),
        "unchecked": {name: asdict(left) for name, left in eval_result.unchecked.items()},
        "ends": {name: [list(end) for end in ends] for name, ends in eval_result.ends.items()},
        "asked_again": {
            name: {str(place): text for place, text in texts.items()} for name, texts in eval_result.asked_again.items()
        },
        "losses": {
            place: {source: asdict(found) for source, found in sources.items()}
            for place, sources in eval_result.losses.items()
        },
        "choices": [asdict(scores) for scores in eval_result.choices],
        "lm_eval_items": dict(eval_result.lm_eval_items),
    }


def read_eval_result(path: Path, *, log: Callable[[str], None]) -> EvalResult | None:
    """What `write_eval_result` wrote; None where there is nothing, or it was changed, which is logged."""
    try:
        return eval_result_in(run_files.read_json(path))
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        log(f"  note: {path.name} is damaged ({cause_of(error)}); the model is measured again")
        return None


def eval_result_in(saved: Mapping[str, Any]) -> EvalResult:
    """What `eval_result_entry` gave.

    Raises:
        Exception: it is damaged, or of another version: one of `DAMAGE`.
    """
    return EvalResult(
        Metrics(**saved["measures"]),
        tuple(saved["task"]),
        tuple(saved["general"]),
        saved["failed"],
        divergence_in(saved),
        saved.get("outcomes", {}),  # without them, as of earlier versions, the replies are checked again
        unchecked_in(saved),
        {name: tuple((tokens, by) for tokens, by in ends) for name, ends in saved.get("ends", {}).items()},
        {
            name: {int(place): text for place, text in texts.items()}
            for name, texts in saved.get("asked_again", {}).items()
        },
        losses=losses_in(saved),
        choices=scores_in(saved),
        lm_eval_items=saved.get("lm_eval_items", {}),
    )
