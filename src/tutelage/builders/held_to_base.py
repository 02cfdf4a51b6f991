"""`train.kl_to_base` -> what holds a run's model to its base; where all weights learn, the base is asked beforehand."""

from __future__ import annotations

from dataclasses import replace

from tutelage.builders.dataset import Prepared
from tutelage.builders.model import TrainState
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.model.base_outputs import HeldToBase
from tutelage.model.loss import base_outputs_of
from tutelage.pack import Sampler, pack_rows
from tutelage.report.console.progress import Screen


def held_to_base(
    resolved: ResolvedRun, prepared: Prepared, order: Sampler, train_state: TrainState, screen: Screen
) -> TrainState:
    """The model of a run, held to its base where the settings ask for it.

    Args:
        resolved: the run's.
        prepared: its data.
        order: in which it visits them.
        train_state: its model, which is still the base; a resumed run puts its weights back later.
        screen: told of the tokens that the base is asked.
    """
    strength = resolved.settings.train.kl_to_base
    if strength is None:
        return train_state
    held = HeldToBase(strength)
    if resolved.settings.model.method == "full":
        first = prepared.train_totals.examples
        visited = sorted({index for _, _, indices in order.indices() for index in indices if index >= first})
        strategy = train_state.strategy
        rows = pack_rows(
            [prepared.train[index] for index in visited],
            row_tokens=resolved.row_tokens,
            documents_isolated=strategy.architecture.documents_isolated,
        )
        outputs = base_outputs_of(train_state.model, rows, architecture=strategy.architecture)
        screen.log(
            f"  The base was asked {len(visited):,} sequences that are replayed; what it said is kept in "
            f"{outputs.nbytes / 1e6:,.0f} MB"
        )
        held = HeldToBase(strength, outputs)
    return replace(train_state, strategy=replace(train_state.strategy, held=held))
