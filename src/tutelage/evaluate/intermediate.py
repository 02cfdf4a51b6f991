"""A model while it trains, held against itself before: what it gained and what it forgot, by the dial's measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

from tutelage.errors import cause_of
from tutelage.evaluate.clusters import Clusters
from tutelage.evaluate.dial import BASE, TUNED, points_of
from tutelage.evaluate.dial_results import DialMeasure
from tutelage.evaluate.gate import GENERAL, Gate
from tutelage.evaluate.grading import SCORE
from tutelage.evaluate.saved_results import DAMAGE, eval_result_entry, eval_result_in
from tutelage.evaluate.statistics import LEVEL
from tutelage.evaluate.suite import EvalResult
from tutelage.report.dial import Estimate
from tutelage.runs import folder as run_files
from tutelage.runs.intermediate import LOST, IntermediateMeasure, MeasuredChange


def intermediate_measure(
    before: EvalResult, now: EvalResult, *, seconds: float, clusters: Clusters = MappingProxyType({})
) -> IntermediateMeasure:
    """What was gained and forgotten since before training, on the same items.

    Args:
        before: of the untouched model.
        now: of the model as it is.
        seconds: that it took to measure.
        clusters: the sources of the items of some measures.
    """
    asked_twice = replace(_asked_twice(before, now), clusters=clusters)
    gain_of, forgotten_of, points, _ = points_of(
        {BASE: asked_twice, TUNED: replace(_dial_measure(now), clusters=clusters)}
    )
    point = points[-1]
    return IntermediateMeasure(
        gain_of=gain_of,
        gain=_change(point.gain),
        forgotten_of=forgotten_of,
        forgotten=_change(point.forgotten),
        divergence=dict(now.divergence),
        metrics=asdict(now.measures),
        failed=dict(now.failed),
        seconds=seconds,
    )


def forgetting_now(measure: IntermediateMeasure, limit: float) -> Gate | None:
    """What was lost of the general set, held against a limit; None where it could not be measured."""
    lost = measure.forgotten
    if measure.forgotten_of != LOST or lost is None or lost.low is None or lost.high is None:
        return None
    return Gate(limit, lost.number, lost.low, lost.high, LEVEL)


def write_intermediate(path: Path, eval_result: EvalResult, *, weights_sha256: str, seconds: float) -> None:
    """Write all that was measured, with every reply, and of which weights; aside, then renamed.

    Raises:
        SaveError: the disk is full or refuses.
    """
    run_files.make_folder(path.parent)
    entry = eval_result_entry(eval_result)
    run_files.write_json(path, {"weights_sha256": weights_sha256, "seconds": seconds, **entry})


def read_intermediate_result(
    path: Path, *, weights_sha256: str, log: Callable[[str], None]
) -> tuple[EvalResult, float] | None:
    """What was written of these weights, and the seconds it took.

    Returns:
        None where there is nothing, or it is of other weights, or damaged, which is logged.
    """
    try:
        saved = run_files.read_json(path)
        if saved["weights_sha256"] != weights_sha256:
            return None
        return eval_result_in(saved), float(saved["seconds"])
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        log(f"  note: {path.name} is damaged ({cause_of(error)}); the model is measured again")
        return None


def _change(estimate: Estimate | None) -> MeasuredChange | None:
    return None if estimate is None else MeasuredChange(estimate.number, estimate.low, estimate.high)


def _asked_twice(before: EvalResult, now: EvalResult) -> DialMeasure:
    """The base by what could be measured now, too: nothing else is compared."""
    base, metrics, documents = _dial_measure(before), before.measures, _dial_measure(now).tokens
    general = metrics.general if GENERAL in now.outcomes else None
    exact = metrics.exact_match if "exact_match" in now.outcomes else None
    scores = {name: score for name, score in metrics.scores.items() if SCORE + name in now.outcomes}
    loss = metrics.heldout_loss if documents and documents == base.tokens else None
    kept = replace(metrics, general=general, exact_match=exact, scores=scores, heldout_loss=loss)
    return replace(base, metrics=kept, divergence=now.divergence)  # of the base itself it is 0, which nobody asks


def _dial_measure(eval_result: EvalResult) -> DialMeasure:
    """In the form that the dial compares; documents stand for held-out rows, and sums of divergences are left out."""
    counted = [
        (nats, tokens)
        for documents in eval_result.losses.get("heldout", {}).values()
        for nats, tokens in zip(documents.nats, documents.tokens, strict=True)
        if tokens
    ]
    return DialMeasure(
        eval_result.measures,
        eval_result.outcomes,
        tuple(nats / tokens for nats, tokens in counted),
        tuple(tokens for _, tokens in counted),
        eval_result.divergence,
        {},
        "",
    )
