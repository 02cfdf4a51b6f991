"""The result of a run as plain values: what `result.json` holds and every page and screen is drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tutelage import config
from tutelage.builders.dataset import Prepared
from tutelage.config import Settings
from tutelage.evaluate.capabilities import item_transitions
from tutelage.evaluate.choice_summary import choice_measure
from tutelage.evaluate.clusters import Clusters, clusters_of
from tutelage.evaluate.intermediate import intermediate_measure
from tutelage.evaluate.losses import loss_measures
from tutelage.evaluate.multiple_choice import as_general
from tutelage.evaluate.noise import noise_floor
from tutelage.evaluate.suite import EvalResult
from tutelage.evaluate.uncertainty import item_outcomes, of_same_tasks, uncertainty_of
from tutelage.model.adapters.trainable import Trainable
from tutelage.model.load import Loaded
from tutelage.runs import folder as run_files
from tutelage.runs.metrics_log import read_record, record_path
from tutelage.system.hardware import peak_bytes
from tutelage.train.extension import Part, order_over_parts
from tutelage.train.loop import Outcome


def result_of(
    settings: Settings,
    prepared: Prepared,
    outcome: Outcome,
    *,
    loaded: Loaded,
    adapted: Trainable,
    precision: str,
    optimizer_bytes: int,
    before: EvalResult,
    after: EvalResult,
    parts: tuple[Part, ...] = (),
) -> dict[str, Any]:
    """All figures of a finished run with what they depend on: versions, hashes, seed, device, commit."""
    progress = outcome.progress
    order = order_over_parts(settings, prepared, parts)
    visits = order.visits_after(progress.steps_done)
    return {
        "name": settings.name,
        "model": settings.model.name,
        "method": settings.model.method,
        "steps": progress.steps_done,
        "epochs": round(visits / order.epoch_visits, 4),
        "stopped_early": outcome.ended == "early_stop",
        "best_step": progress.best_step,
        "forgot_step": progress.forgot_step,
        "before": asdict(before.measures),
        "after": asdict(after.measures),
        **_compared(prepared, before, after),
        "losses": {place: asdict(found) for place, found in loss_measures(before.losses, after.losses).items()},
        "multiple_choice": _choices(prepared, before, after),
        "divergence": {place: asdict(measure) for place, measure in after.divergence.items()},
        "noise": _noise(prepared, before),
        "gained_and_forgot": _gained_and_forgot(prepared, before, after),
        "unmeasured": unmeasured(before, after),
        "unchecked": _unchecked(before, after),
        "tokens_per_second": _speed(record_path(settings.run_folder)),
        "trained_tokens": progress.trained_tokens,
        "total_tokens": progress.tokens,
        "peak_bytes": peak_bytes(),
        "dropped": dict(prepared.ledger.dropped.most_common()),
        "examples": _examples(settings, prepared, before, after),
        "parameters": {"total": adapted.parameters, "trainable": adapted.trainable, "four_bit": adapted.four_bit},
        "bytes": {
            "weights": adapted.weight_bytes,
            "trained": adapted.trainable_bytes,
            "optimizer_state": optimizer_bytes,
        },
        "device": f"{loaded.device}, {torch.get_num_threads()} threads",
        "precision": precision,
        "versions": run_files.versions(),
        "seed": settings.seed,
        "settings_sha256": hashlib.sha256(config.dump(settings).encode()).hexdigest(),
        "template_sha256": prepared.renderer.template.sha256(),
        "tokenizer_sha256": prepared.renderer.tokenizer.sha256(),
        "data_sha256": prepared.data_sha256,
        "git_commit": run_files.git_commit(),
    }


def _unchecked(before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """What a check failed on, by set; a measurement without it is left out."""
    return {
        phase: {name: asdict(left) for name, left in measured.unchecked.items()}
        for phase, measured in (("before", before), ("after", after))
        if measured.unchecked
    }


def _compared(prepared: Prepared, before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """What the items show of the change, and which of the general set were lost and gained."""
    outcomes_before, outcomes_after = (
        item_outcomes(prepared.task, prepared.general, measured, checkers=prepared.checkers)
        for measured in (before, after)
    )
    outcomes_before = of_same_tasks(outcomes_before, before.lm_eval_items, after.lm_eval_items)
    general, replies_before, replies_after = prepared.general, before.general_replies, after.general_replies
    if len(before.choices) == len(after.choices) == len(prepared.choices):
        as_items, chosen_before = as_general(prepared.choices, before.choices)
        _, chosen_after = as_general(prepared.choices, after.choices)
        general = (*general, *as_items)
        replies_before, replies_after = (*replies_before, *chosen_before), (*replies_after, *chosen_after)
    moved = item_transitions(
        general,
        replies_before,
        replies_after,
        right_before=outcomes_before.get("general", ()),
        right_after=outcomes_after.get("general", ()),
    )
    transitions = moved and {
        "lost": {topic: list(ids) for topic, ids in moved.lost.items()},
        "gained": {topic: list(ids) for topic, ids in moved.gained.items()},
        "lost_items": [asdict(item) for item in moved.lost_items],
    }
    uncertainty = uncertainty_of(outcomes_before, outcomes_after, _clusters(prepared))
    return {"uncertainty": asdict(uncertainty), "transitions": transitions}


def _clusters(prepared: Prepared) -> Clusters:
    return clusters_of([*prepared.general, *prepared.choices])


def _gained_and_forgot(prepared: Prepared, before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """What counts as gain and as forgetting, and how much of it there is."""
    measure = intermediate_measure(before, after, seconds=0.0, clusters=_clusters(prepared))
    kept = ("gain_of", "gain", "forgotten_of", "forgotten")
    return {name: value for name, value in asdict(measure).items() if name in kept}


def _choices(prepared: Prepared, before: EvalResult, after: EvalResult) -> dict[str, Any]:
    measure = choice_measure(prepared.choices, before.choices, after.choices)
    return {} if measure is None else asdict(measure)


def unmeasured(before: EvalResult, after: EvalResult) -> dict[str, dict[str, str]]:
    """The measures that failed, by when and name, with the cause of each; empty where all went well."""
    return {when: dict(result.failed) for when, result in (("before", before), ("after", after)) if result.failed}


def _noise(prepared: Prepared, before: EvalResult) -> dict[str, Any] | None:
    noise = noise_floor(prepared.task, prepared.general, before, checkers=prepared.checkers)
    return None if noise is None else asdict(noise)


def _speed(record: Path) -> float:
    """Tokens per second over all steps, from the record: a resumed run counts its first part too."""
    tokens, seconds = 0, 0.0
    for step in read_record(record)[0]:
        if step.get("tokens_per_second"):
            tokens += step["tokens"]
            seconds += step["tokens"] / step["tokens_per_second"]
    return tokens / seconds if seconds else 0.0


def _examples(
    settings: Settings, prepared: Prepared, before: EvalResult, after: EvalResult
) -> list[dict[str, str | None]]:
    return [
        {
            "address": str(prompt.address),
            "prompt": prepared.task_words[index],
            "reference": prompt.reference,
            "before": before.task_replies[index] if before.task_replies else None,
            "after": after.task_replies[index] if after.task_replies else None,
        }
        for index, prompt in enumerate(prepared.task[: settings.evaluate.examples])
    ]
