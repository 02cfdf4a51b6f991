"""How far training moves a model from its base: the prompts, what the base says before, and what is measured after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tutelage.builders.dataset import Prepared
from tutelage.config import Settings
from tutelage.distributed.collective_errors import collective_call, failures
from tutelage.distributed.strategy import Strategy
from tutelage.errors import cause_of
from tutelage.evaluate.base_replies import MOST_TOKENS, BaseReplies, ask_base, moved, read_base_replies
from tutelage.evaluate.base_replies import save_base_replies as save
from tutelage.evaluate.divergence import Divergence
from tutelage.model.architecture import Architecture
from tutelage.model.out_of_memory import release_memory
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.runs.divergence import DivergenceMeasure
from tutelage.types import Message, TokenIds

Prompts = dict[str, list[TokenIds]]
T = TypeVar("T")


def divergence_prompts(settings: Settings, prepared: Prepared, renderer: Renderer) -> Prompts:
    """Served prompts by place, at most `evaluate.divergence_prompts` of each, spread evenly over its set.

    Those of the task are those of `evaluate.task`, or else of held-out rows; of these only such as leave room for a
    reply.
    """
    most = settings.evaluate.divergence_prompts
    new_tokens = min(settings.evaluate.max_new_tokens, MOST_TOKENS)
    task = [prompt.ids for prompt in prepared.task]
    if not task:
        starts = [example.ids[: int(np.flatnonzero(example.weights)[0])] for example in prepared.validation]
        task = [ids for ids in starts if 0 < len(ids) <= settings.pack.max_seq_length - new_tokens]
    prompts = {"task": _spread(task, most)}
    prompts["general"] = [renderer.serve([Message("user", item.prompt)]) for item in _spread(prepared.general, most)]
    return {place: place_prompts for place, place_prompts in prompts.items() if place_prompts}


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, spread evenly."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def base_replies_for(
    settings: Settings,
    prepared: Prepared,
    model: Any,
    strategy: Strategy,
    *,
    path: Path,
    screen: Screen,
) -> None:
    """Have a base that is about to be trained reply, on one process.

    Args:
        settings: the run's.
        prepared: its data.
        model: the base, what is to be trained marked so.
        strategy: the processes; all must call this.
        path: what it says is kept there; where a file of an earlier part of the run is there, nothing is asked.
        screen: told what happens.
    """
    if settings.evaluate.divergence_prompts == 0 or not settings.evaluate.before:
        return

    def ask() -> None:
        if not strategy.process_group.is_main or read_base_replies(path, model) is not None:
            return
        prompts = divergence_prompts(settings, prepared, prepared.renderer)
        replies = sum(map(len, prompts.values()))
        if not replies:
            return
        title = f"Before training: {replies} replies of the base, to compare with later"
        with screen.counting(title, replies) as done:
            base = ask_base(
                model,
                prepared.renderer.tokenizer,
                prompts,
                strategy.architecture,
                max_new_tokens=settings.evaluate.max_new_tokens,
                batch_prompts=settings.evaluate.batch_prompts,
                seed=settings.seed,
                done=done,
            )
        if base is None:
            screen.log("  note: how far the model moves from its base is not measured: its logits cannot be kept")
            return
        save(path, base)

    _tolerated(strategy, ask, screen)


def divergence_of(
    model: Any, strategy: Strategy, *, path: Path, screen: Screen, title: str = "After training"
) -> dict[str, DivergenceMeasure]:
    """What a trained model is away from its base, by place; empty where the base was not asked.

    Args:
        model: the trained one.
        strategy: the processes; all must call this.
        path: what the base said.
        screen: told what happens.
        title: when this is.
    """
    if not strategy.process_group.any(path.is_file()):
        return {}

    def measure() -> dict[str, DivergenceMeasure]:
        base = read_base_replies(path, model) if strategy.process_group.is_main else None
        if base is None:
            return {}
        counted = f"{title}: comparing with {len(base.replies)} replies of the base"
        with screen.counting(counted, len(base.replies)) as done:
            return summaries(moved(model, base, strategy.architecture, done=done), drawn=base.drawn)

    return _tolerated(strategy, measure, screen) or {}


def compare_with_base(
    base: BaseReplies, model: Any, architecture: Architecture, *, screen: Screen
) -> dict[str, DivergenceMeasure]:
    """The same of a model that is open, against a base that was asked just now."""
    with screen.counting(f"Comparing {len(base.replies)} replies of the base", len(base.replies)) as done:
        return summaries(moved(model, base, architecture, done=done), drawn=base.drawn)


def summaries(by_place: dict[str, Divergence], *, drawn: bool) -> dict[str, DivergenceMeasure]:
    """What is written down of it."""
    return {
        place: DivergenceMeasure(
            mean=measured.mean,
            low=None if (interval := measured.interval) is None else interval.low,
            high=None if interval is None else interval.high,
            replies=len(measured.sums),
            tokens=sum(measured.tokens),
            noise=measured.noise,
            drawn=drawn,
        )
        for place, measured in by_place.items()
    }


def _tolerated(strategy: Strategy, work: Callable[[], T], screen: Screen) -> T | None:
    """What `work` returns with the whole model on each process; None, said, where it fails.

    A run is not ended by what is measured beside it.
    """
    unsharded = nullcontext if strategy.fsdp_root is None else strategy.fsdp_root.unsharded
    try:
        with unsharded():
            return collective_call(strategy.process_group, work)
    except failures(strategy.process_group) as error:
        cause = cause_of(error)
    release_memory()  # behind the handler, whose error holds on to what was computed
    screen.log(f"  note: how far the model moves from its base is not measured ({cause})")
    return None
