"""A finished run -> what each value of the dial gains and forgets, measured with the run's own questions."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tutelage.builders.base_divergence import divergence_prompts, summaries
from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import Prepared
from tutelage.builders.evaluation import eval_suite_for, prepared_again
from tutelage.builders.resolved_run import resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.builders.run_inputs import base_sha256
from tutelage.builders.trained_model import TrainedModel, open_trained_model, trained_folder
from tutelage.config import Settings
from tutelage.errors import ConfigError
from tutelage.evaluate.base_replies import BaseReplies, ask_base, moved
from tutelage.evaluate.clusters import clusters_of
from tutelage.evaluate.dial import BASE, TUNED
from tutelage.evaluate.dial_results import DialMeasure, read_dial_measures, save_dial_measure
from tutelage.evaluate.heldout import heldout_loss
from tutelage.evaluate.suite import EvalSuite, run_suite
from tutelage.model.architecture import Architecture, architecture_of, use_training_attention
from tutelage.model.checksums import model_sha256
from tutelage.model.interpolation import mark_whole_modules, nothing_between, require_scalable, require_value
from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.model.precision import Precision
from tutelage.report.console.progress import Screen
from tutelage.report.dial import value_text
from tutelage.report.numbers import duration
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import deciding_settings
from tutelage.runs.unchecked import unchecked_notes
from tutelage.system.files import cache_folder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Questions:
    """What each value is asked, and the base's replies that it is compared on."""

    suite: EvalSuite
    architecture: Architecture
    base: BaseReplies | None
    base_sha256: str

    @property
    def steps(self) -> int:
        """Rows and replies of one value."""
        return len(self.suite.heldout_rows) + self.suite.replies + (0 if self.base is None else len(self.base.replies))


def measure_dial(run: str, values: Iterable[float], *, screen: Screen) -> dict[float, DialMeasure]:
    """Measure a run's model at values between its base and what it trained; what was measured before is not again.

    Args:
        run: its folder, which keeps each value in `dial.json` as it ends.
        values: from 0 to `model.interpolation.HIGHEST`; 0 and 1, which all are compared with, come by themselves.
        screen: told what happens.

    Returns:
        By rising value.

    Raises:
        ConfigError: a value is out of range, the run has nothing between its base and what it trained, or it has
            nothing to be measured on.
        SourceNotFoundError: not a run, or not finished; its base is not there any more.
        CheckpointError: the settings cannot be read, or base, tokenizer or trained weights are other ones.
        SaveError: the disk is full or refuses.
    """
    folder = run_files.existing_run_folder(run)
    settings = run_files.read_settings(folder)
    if settings.model.method == "prompt":
        raise nothing_between(
            "model.method = prompt: no part of its virtual tokens is the base", fix="leave --dial out"
        )
    wanted = sorted({BASE, TUNED, *values})
    for value in wanted:
        require_value(value)
    trained, start = trained_folder(folder, settings), start_folder(settings.model, log=screen.log)
    prepared = prepared_again(settings, start, log=screen.log)
    if not (prepared.task or prepared.general or len(prepared.validation)):
        raise ConfigError(
            "This run has nothing that the dial could be measured on",
            where=str(folder / run_files.SETTINGS),
            found="no held-out rows, no evaluate.task and no evaluate.general",
            expected="at least one of them",
            fix="train again with data.validation_ratio above 0",
        )
    path, key = folder / run_files.DIAL, _key(settings, prepared, start, trained, screen.log)
    known = read_dial_measures(path, key, log=screen.log)
    if any(value_text(value) not in known for value in wanted):
        save = partial(save_dial_measure, path, key)
        known |= _measure_unknown(
            opened_for_dial(folder, settings, screen), prepared, wanted, known, screen=screen, save=save
        )
    return {value: known[value_text(value)] for value in wanted}


def _key(settings: Settings, prepared: Prepared, start: Path, trained: Path, log: Callable[[str], None]) -> str:
    """The hash of all that decides the numbers: two values with one key can be compared."""
    resolved = resolve(settings)
    facts = {
        "trained": model_sha256(trained, cache=cache_folder() / "sha256", log=log),
        "base": base_sha256(settings, start, log=log),
        "tokenizer": prepared.renderer.tokenizer.sha256(),
        "template": prepared.renderer.template.sha256(),
        "data": sorted(prepared.data_sha256.values()),
        "examples": prepared.examples_sha256,
        "settings": deciding_settings(settings),
        "computed": [resolved.device, resolved.precision],
        "versions": run_files.versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def opened_for_dial(
    folder: Path, settings: Settings, screen: Screen, *, precision: Precision | None = None
) -> TrainedModel:
    """The trained model; beside whole weights the base's, in main memory, loaded first, so that one is on a device.

    Args:
        folder: of the run.
        settings: of the run.
        screen: told what is slow.
        precision: they compute in this one; None: in that of the run.

    Raises:
        ConfigError: it has nothing between its base and what was trained.
        TutelageError: it cannot be opened.
    """
    if settings.model.method != "full":
        opened = open_trained_model(str(folder), tuned=True, base=False, precision=precision, log=screen.log)
        require_scalable(opened.tuned, start_slot=opened.start_slot)
        return opened
    base = open_trained_model(str(folder), tuned=False, base=True, precision=precision, log=lambda _: None).base
    assert base is not None
    base.to("cpu")
    release_memory()
    tuned = open_trained_model(str(folder), tuned=True, base=False, precision=precision, log=screen.log)
    return replace(tuned, base=base)


def _measure_unknown(
    opened: TrainedModel,
    prepared: Prepared,
    wanted: Sequence[float],
    known: dict[str, DialMeasure],
    *,
    screen: Screen,
    save: Callable[[float, DialMeasure], None],
) -> dict[str, DialMeasure]:
    """What is not known yet of the values that are wanted; each is saved as it ends."""
    questions = _questions(opened, prepared, screen)
    stale = {label for label, measure in known.items() if measure.replies_sha256 != questions.base_sha256}
    if stale:
        screen.log("  note: the base replied otherwise than when other values were measured; they are measured again")
    unknown = [value for value in wanted if value_text(value) not in known or value_text(value) in stale]
    began, found = time.monotonic(), {}
    names = ", ".join(map(value_text, unknown))
    with screen.counting(f"Measuring at {names}", len(unknown) * questions.steps) as done:
        for count, value in enumerate(unknown, start=1):
            with opened.at(value) as model:
                measure = _measured(model, opened, questions, done, screen)
            save(value, measure)
            found[value_text(value)] = measure
            if count < len(unknown):
                left = (time.monotonic() - began) / count * (len(unknown) - count)
                screen.log(f"  {value_text(value)} is measured and kept; about {duration(left)} left")
    return found


def _questions(opened: TrainedModel, prepared: Prepared, screen: Screen) -> _Questions:
    settings = opened.settings
    resolved = resolve(settings)
    with opened.at(BASE) as model:
        mark_whole_modules(model)
        architecture = architecture_of(model, longest_rows(resolved, prepared))
        base = _tolerated(lambda: _base_replies(model, opened, prepared, architecture, screen), screen)
    suite = eval_suite_for(resolved, prepared, architecture=architecture)
    rows = tuple(row for row in suite.heldout_rows if row.trained_tokens)
    suite = replace(suite, heldout_rows=rows, noise_prompts=0)
    digest = hashlib.sha256()
    for reply in () if base is None else base.replies:
        digest.update(reply.prompt.tobytes() + b"|" + reply.text.tobytes() + b";")
    return _Questions(suite, architecture, base, "" if base is None else digest.hexdigest())


def _base_replies(
    model: Any, opened: TrainedModel, prepared: Prepared, architecture: Architecture, screen: Screen
) -> BaseReplies | None:
    settings = opened.settings
    prompts = divergence_prompts(settings, prepared, opened.renderer)
    count = sum(map(len, prompts.values()))
    if not count:
        return None
    with screen.counting(f"Asking the base for {count} replies, to compare with", count) as done:
        base = ask_base(
            model,
            opened.renderer.tokenizer,
            prompts,
            architecture,
            max_new_tokens=settings.evaluate.max_new_tokens,
            batch_prompts=settings.evaluate.batch_prompts,
            seed=settings.seed,
            done=done,
        )
    if base is None:
        screen.log("  note: how far a value moves from the base is not measured: its logits cannot be kept")
    return base


def _measured(
    model: Any, opened: TrainedModel, questions: _Questions, done: Callable[[int], None], screen: Screen
) -> DialMeasure:
    """One value: the loss of each held-out row, the run's questions, and the distance from the base."""
    architecture, suite, base = questions.architecture, questions.suite, questions.base
    loss_of = partial(row_loss, architecture=architecture)
    use_training_attention(model, architecture.attention)
    losses = []
    for row in suite.heldout_rows:
        losses.append(heldout_loss(model, (row,), row_loss=loss_of, log=screen.log))
        done(1)
    eval_result = run_suite(
        model,
        opened.renderer,
        replace(suite, heldout_rows=()),
        done=done,
        row_loss=loss_of,
        attention=architecture.attention,
        log=screen.log,
    )
    for note in unchecked_notes({"Here": eval_result.unchecked}):
        screen.log(f"  {note}")
    by_place = {} if base is None else _tolerated(lambda: moved(model, base, architecture, done=done), screen) or {}
    tokens = tuple(row.trained_tokens for row in suite.heldout_rows)
    mean = math.fsum(map(math.prod, zip(losses, tokens, strict=True))) / sum(tokens) if tokens else None
    return DialMeasure(
        replace(eval_result.measures, heldout_loss=mean),
        {name: tuple(outcomes) for name, outcomes in eval_result.outcomes.items()},
        tuple(losses),
        tokens,
        {} if base is None else summaries(by_place, drawn=base.drawn),
        {place: divergence.sums for place, divergence in by_place.items()},
        questions.base_sha256,
        clusters_of(suite.general),
    )


def _tolerated(work: Callable[[], T], screen: Screen) -> T | None:
    """What `work` returns; None, said, where memory runs out: the other measures need less."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_memory()  # behind the handler, whose error holds on to what was computed
    screen.log("  note: memory ran out as the distance from the base was measured; it is left out")
    return None
