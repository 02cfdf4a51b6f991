"""Settings -> when a run does more than take a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from tutelage.builders.evaluation import heldout_loss_measure
from tutelage.builders.intermediate import intermediate_measuring
from tutelage.builders.measured_steps import measured_steps
from tutelage.builders.model import TrainState
from tutelage.builders.sampler import epoch_steps
from tutelage.config import Settings
from tutelage.evaluate.suite import EvalResult, EvalSuite
from tutelage.pack import Sampler
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.train.intermediate import Intermediate
from tutelage.train.loop import Cadence


def cadence_of(settings: Settings, order: Sampler, *, processes: int) -> Cadence:
    """As the settings say; left out, four evaluations an epoch, and several processes save as often."""
    train_settings = settings.train
    evaluate_every = train_settings.evaluate_every or math.ceil(epoch_steps(order) / 4)
    save_too = evaluate_every if processes > 1 else None
    return Cadence(evaluate_every, train_settings.checkpoint_every or save_too, train_settings.early_stopping_patience)


def heldout_of(
    train_state: TrainState, eval_suite: EvalSuite, *, log: Callable[[str], None]
) -> Callable[[], float] | None:
    """What measures the held-out loss; None where nothing is held out."""
    if not eval_suite.heldout_rows:
        return None
    return heldout_loss_measure(
        train_state.strategy, train_state.model, train_state.optimizer, eval_suite.heldout_rows, log=log
    )


def intermediate_of(
    settings: Settings,
    order: Sampler,
    train_state: TrainState,
    renderer: Renderer,
    eval_suite: EvalSuite,
    before: EvalResult,
    *,
    repeats: bool,
    screen: Screen,
) -> Intermediate | None:
    """What is measured while a run trains; None where nothing is.

    Args:
        settings: the run's.
        order: its length.
        train_state: its model.
        renderer: makes the served prompts.
        eval_suite: the run's questions.
        before: what was measured before training.
        repeats: it is a replay, which measures only where that may end it.
        screen: told what happens.
    """
    limit = settings.train.early_stopping_forgetting
    steps = measured_steps(settings, order.steps)
    if not steps or (repeats and limit is None):
        return None
    measure = intermediate_measuring(settings, train_state, renderer, eval_suite, before, screen=screen)
    return Intermediate(steps, measure, limit, screen.log)
