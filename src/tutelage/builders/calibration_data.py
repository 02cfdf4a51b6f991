"""`lora.init` that looks at data -> the rows it looks at: those of the run's first steps, each example once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tutelage.builders.dataset import Prepared
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.builders.sampler import sampler_for
from tutelage.config import Settings
from tutelage.config.method import DATA_DRIVEN_INITS
from tutelage.model.adapters.lora_init import CalibrationData
from tutelage.model.architecture import Architecture
from tutelage.pack import pack_rows
from tutelage.report.console.progress import Screen
from tutelage.types import Example


def calibration_for(
    resolved: ResolvedRun, prepared: Prepared, screen: Screen
) -> Callable[[Architecture], AbstractContextManager[CalibrationData]] | None:
    """A function for `builders.model`, which shows how far it has looked; None where the run looks at nothing."""
    settings = resolved.settings
    if "lora" not in settings.model.method or settings.lora.init not in DATA_DRIVEN_INITS:
        return None

    @contextmanager
    def open_calibration(architecture: Architecture) -> Iterator[CalibrationData]:
        examples = first_examples(settings, prepared)
        rows = pack_rows(examples, row_tokens=resolved.row_tokens, documents_isolated=architecture.documents_isolated)
        title = f"Before the first step: tokens that lora.init = {settings.lora.init} looks at"
        with screen.counting(title, sum(len(row.ids) for row in rows)) as advance:
            yield CalibrationData(rows, advance, architecture)

    return open_calibration


def first_examples(settings: Settings, prepared: Prepared) -> list[Example]:
    """Whole examples in the order in which they are trained, of about `lora.init_tokens` tokens."""
    sampler = sampler_for(settings, examples=len(prepared.train), sources=prepared.sources)
    chosen: dict[int, Example] = {}
    tokens = 0
    for _, _, indices in sampler.indices():
        for index in indices:
            if tokens >= settings.lora.init_tokens:
                return list(chosen.values())
            if index not in chosen:
                chosen[index] = prepared.train[index]
                tokens += len(chosen[index].ids)
    return list(chosen.values())
