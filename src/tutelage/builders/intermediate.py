"""Settings -> at which steps a run measures its model while it trains, and what does."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from tutelage.builders.base_divergence import divergence_of
from tutelage.builders.measuring import run_suite_on_ranks
from tutelage.builders.model import TrainState
from tutelage.config import Settings
from tutelage.distributed.process_group import ProcessGroup
from tutelage.evaluate.clusters import clusters_of
from tutelage.evaluate.intermediate import intermediate_measure, read_intermediate_result, write_intermediate
from tutelage.evaluate.reply_log import delete_replies
from tutelage.evaluate.suite import EvalResult, EvalSuite
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.intermediate import IntermediateMeasure


def intermediate_measuring(
    settings: Settings,
    train_state: TrainState,
    renderer: Renderer,
    eval_suite: EvalSuite,
    before: EvalResult,
    *,
    screen: Screen,
) -> Callable[[int], IntermediateMeasure]:
    """A function of the steps done that measures the model as it is; all processes must call it.

    What it measures is kept in the run's folder with the hash of the weights. A run that was killed and comes to the
    same step again with the same weights takes that, and asks nothing.

    Args:
        settings: the run's.
        train_state: its model.
        renderer: makes the served prompts.
        eval_suite: the run's questions; none is asked twice for the noise floor.
        before: what was measured before training.
        screen: told what happens.
    """
    suite, strategy = replace(eval_suite, noise_prompts=0), train_state.strategy
    clusters = clusters_of([*suite.general, *suite.choices])

    def measure(step: int) -> IntermediateMeasure:
        began = time.perf_counter()
        path = intermediate_path(settings.run_folder, step)
        title, group = f"After step {step}", strategy.process_group
        with train_state.optimizer.using_average():
            weights = weights_sha256(train_state.optimizer.masters, group)
            known = read_intermediate_result(path, weights_sha256=weights, log=screen.log) if group.is_main else None
            known = group.gather(known)[0]
            if known is not None:
                screen.log(f"{title}: measured before, and not again")
                return intermediate_measure(before, known[0], seconds=known[1], clusters=clusters)
            now = run_suite_on_ranks(
                settings,
                train_state,
                train_state.model,
                renderer,
                suite,
                title=title,
                kept=(run_files.REPLIES_WHILE_TRAINING, {"step": str(step), "weights": weights}),
                screen=screen,
                again=False,
            )
            base_replies = settings.run_folder / run_files.BASE_REPLIES
            moved = divergence_of(train_state.model, strategy, path=base_replies, screen=screen, title=title)
        now, seconds = replace(now, divergence=moved), time.perf_counter() - began
        if group.is_main:
            write_intermediate(path, now, weights_sha256=weights, seconds=seconds)
            delete_replies(settings.run_folder / run_files.REPLIES_WHILE_TRAINING)
        return intermediate_measure(before, now, seconds=seconds, clusters=clusters)

    return measure


def intermediate_path(folder: Path, step: int) -> Path:
    """The file of what was measured after `step` steps."""
    return folder / run_files.INTERMEDIATE / f"step-{step:06d}.json"


def weights_sha256(weights: Mapping[str, torch.Tensor], process_group: ProcessGroup) -> str:
    """The hash of what is trained, of all processes; all must call this."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        values = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).contiguous().cpu()
        digest.update(f"{name} {list(tensor.shape)} ".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return hashlib.sha256("".join(process_group.gather(digest.hexdigest())).encode()).hexdigest()
