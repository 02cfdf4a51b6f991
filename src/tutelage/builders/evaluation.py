"""What a run's models are asked, and the same questions again for a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from tutelage.builders.dataset import Prepared, prepare, prepared_cache
from tutelage.builders.named_adapters import NamedAdapter
from tutelage.builders.packing import longest_rows, row_tokens_here, shares_prefixes_here
from tutelage.builders.positions import positions_of
from tutelage.builders.trained_model import Reopened, reopen
from tutelage.config import Settings
from tutelage.distributed.strategy import Engine
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.suite import Exam, Measures, Sitting, sit
from tutelage.model.architecture import Anatomy, anatomy_of
from tutelage.model.loss import row_loss
from tutelage.optim.master_weights import Masters
from tutelage.pack import pack_rows
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.types import Row


def exam_for(settings: Settings, prepared: Prepared, *, anatomy: Anatomy) -> Exam:
    """The held-out rows, task prompts and general prompts of a run.

    Args:
        settings: the run's.
        prepared: its data.
        anatomy: what was tried on the model, which says what documents may share.
    """
    return Exam(
        heldout_rows=pack_rows(
            prepared.validation,
            row_tokens=row_tokens_here(settings),
            share_prefixes=shares_prefixes_here(settings) and anatomy.shares_beginnings,
            together=anatomy.together,
        ),
        task=prepared.task,
        general=prepared.general,
        max_new_tokens=settings.evaluate.max_new_tokens,
        batch_prompts=settings.evaluate.batch_prompts,
    )


def heldout_measure(
    engine: Engine, model: Any, optimiser: Masters, rows: Sequence[Row], *, say: Callable[[str], None]
) -> Callable[[], float]:
    """A function that measures the loss on `rows` of what is kept so far."""

    def measure() -> float:
        with optimiser.measured():
            return heldout_loss(model, rows, row_loss=engine.row_loss, ranks=engine.ranks, say=say)

    return measure


def sit_together(
    engine: Engine,
    model: Any,
    renderer: Renderer,
    exam: Exam,
    *,
    done: Callable[[int], None],
    say: Callable[[str], None],
) -> Sitting:
    """Measure the model; every process gets all that is found. What fails is left out, and named in the sitting."""
    return sit(
        model,
        renderer,
        exam,
        done=lambda replies: done(replies * engine.ranks.size),
        row_loss=engine.row_loss,
        attention=engine.anatomy.attention,
        whole=nullcontext if engine.door is None else engine.door.whole,
        ranks=engine.ranks,
        excused=True,
        say=say,
    )


def examine(run: str, *, base: bool, screen: Screen) -> Measures:
    """Measure what a run trained, or with `base` what it started from, on the files its settings name.

    Raises:
        SourceNotFoundError: not a run, or not finished.
    """
    opened = reopen(run, tuned=not base, base=base, say=screen.say)
    (measures,) = _examine(opened, ("base" if base else "tuned",), screen).values()
    return measures


def examine_adapters(run: str, adapters: Sequence[NamedAdapter], *, screen: Screen) -> dict[str, Measures]:
    """Measure a run's base, what it trained, and other adapters of the same base, which is loaded once.

    Raises:
        SourceNotFoundError: not a run, or not finished.
        ConfigError: an adapter that cannot be beside the run's.
        DataError: an adapter of another base.
    """
    opened = reopen(run, tuned=True, base=False, adapters=adapters, say=screen.say)
    return _examine(opened, opened.names, screen)


def _examine(opened: Reopened, names: Sequence[str], screen: Screen) -> dict[str, Measures]:
    folder = opened.renderer.tokenizer.folder
    positions = positions_of(opened.settings, folder)
    prepared = prepare(positions.within(opened.settings), folder, cache=prepared_cache())
    positions.require_room(opened.settings, prepared)
    with opened.as_named(names[0]) as model:
        anatomy = anatomy_of(model, longest_rows(opened.settings, prepared))
        exam = exam_for(opened.settings, prepared, anatomy=anatomy)
    found = {}
    for name in names:
        title = f"Asking {name}" if len(names) > 1 else "Asking"
        with screen.counting(f"{title} {exam.replies} prompts", exam.replies) as done, opened.as_named(name) as model:
            found[name] = sit(
                model,
                opened.renderer,
                exam,
                done=done,
                say=screen.say,
                row_loss=partial(row_loss, anatomy=anatomy),
                attention=anatomy.attention,
            ).measures
    return found
