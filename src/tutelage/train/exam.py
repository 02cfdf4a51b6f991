"""What a run's models are asked, and the same questions again for a finished run."""

from __future__ import annotations

from tutelage.config import Settings
from tutelage.evaluate.measure import Exam, Measures, sit
from tutelage.pack import pack_rows
from tutelage.train.prepare import Prepared, prepare, prepared_cache
from tutelage.train.reopen import reopen
from tutelage.train.screen import Screen


def exam_for(settings: Settings, prepared: Prepared) -> Exam:
    """The held-out rows, task prompts and general prompts of a run."""
    return Exam(
        heldout_rows=pack_rows(
            prepared.validation, row_tokens=settings.pack.row_tokens, share_prefixes=settings.pack.share_prefixes
        ),
        task=prepared.task,
        general=prepared.general,
        max_new_tokens=settings.evaluate.max_new_tokens,
        batch_prompts=settings.evaluate.batch_prompts,
    )


def examine(run: str, *, base: bool, screen: Screen) -> Measures:
    """Measure what a run trained, or with `base` what it started from, on the files its settings name.

    Raises:
        SourceNotFoundError: not a run, or not finished.
    """
    opened = reopen(run, tuned=not base, base=base, say=screen.say)
    prepared = prepare(opened.settings, opened.renderer.tokenizer.folder, cache=prepared_cache())
    exam = exam_for(opened.settings, prepared)
    with screen.counting(f"Asking {exam.replies} prompts", exam.replies) as done:
        model = opened.base if base else opened.tuned
        return sit(model, opened.renderer, exam, done=done).measures
