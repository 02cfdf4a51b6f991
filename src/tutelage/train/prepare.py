"""Settings -> data: everything a run needs before a model is loaded. Imports without torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage import formats
from tutelage.config import Settings
from tutelage.errors import DataError
from tutelage.evaluate.general import GeneralItem, read_general
from tutelage.evaluate.json_task import parse_object
from tutelage.formats.sources import SourceFile, find_files
from tutelage.ledger import Ledger
from tutelage.pack import within_limit
from tutelage.render import Renderer, examples
from tutelage.train.renderer import renderer_for
from tutelage.types import Conversation, Drop, Example, Prompt

SHOWN_CHARACTERS = 80
ProvenRow = tuple[Conversation, tuple[Example, ...]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run trains on and is tested on, and the books about it.

    `task_words` are what the users of the task rows said last; `system_prompt` is the one that at least
    half of the training rows begin with, or None.
    """

    renderer: Renderer
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    task: tuple[Prompt, ...]
    task_words: tuple[str, ...]
    general: tuple[GeneralItem, ...]
    system_prompt: str | None
    ledger: Ledger
    data_sha256: dict[str, str]


def prepare(settings: Settings, model_folder: Path, *, ledger_path: Path | None = None) -> Prepared:
    """Read, prove and measure out all data of a run.

    Raises:
        DataError: nothing is left to train on; or, with data.strict, any row was dropped.
    """
    ledger = Ledger(strict=settings.data.strict, path=ledger_path)
    renderer = renderer_for(model_folder, settings.render)
    data, evaluation = settings.data, settings.evaluate
    train = _proven(data.train, settings, renderer, ledger, max_rows=data.max_rows)
    validation = _proven(data.validation, settings, renderer, ledger) if data.validation else []
    if not validation:
        train, validation = _hold_out(train, data.validation_share, settings.seed)
    task, task_words = _task(evaluation.task, settings, renderer, ledger)
    ledger.check()
    if not train:
        raise DataError(
            "Nothing is left to train on",
            where=", ".join(data.train),
            found=", ".join(f"{count} rows dropped: {reason}" for reason, count in ledger.dropped.most_common(4)),
            expected="at least one proven row",
            fix="look at the rows and their reasons: tutelage check " + " ".join(data.train),
        )
    general = tuple(item for path in evaluation.general for item in read_general(path))
    sources = [*data.train, *data.validation, *evaluation.task]
    files = find_files(sources, ledger.note) + [SourceFile(Path(path), path) for path in evaluation.general]
    return Prepared(
        renderer=renderer,
        train=tuple(one for _, row in train for one in row),
        validation=tuple(one for _, row in validation for one in row),
        task=task,
        task_words=task_words,
        general=general,
        system_prompt=_common_system_prompt(train),
        ledger=ledger,
        data_sha256={file.shown: _sha256(file.path) for file in files},
    )


def _proven(
    sources: Sequence[str], settings: Settings, renderer: Renderer, ledger: Ledger, *, max_rows: int | None = None
) -> list[ProvenRow]:
    data = settings.data
    read = formats.read(sources, ledger=ledger, shape=data.shape, columns=data.columns, max_rows=max_rows)
    return list(within_limit(examples(read, renderer, ledger), max_tokens=settings.pack.max_tokens, ledger=ledger))


def _hold_out(rows: list[ProvenRow], share: float, seed: int) -> tuple[list[ProvenRow], list[ProvenRow]]:
    """Whole rows, never single turns of a row: a split row must not stand on both sides."""
    if share == 0.0 or len(rows) < 2:
        return rows, []
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    count = min(len(rows) - 1, max(1, round(share * len(rows))))
    held = set(order[:count].tolist())
    kept = [row for index, row in enumerate(rows) if index not in held]
    return kept, [rows[index] for index in sorted(held)]


def _task(
    sources: Sequence[str], settings: Settings, renderer: Renderer, ledger: Ledger
) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    if not sources:
        return (), ()
    prompts, words = [], []
    for conversation, _ in _proven(sources, settings, renderer, ledger):
        if conversation.is_text:
            raise _not_a_task(conversation, "a plain document, without a reply")
        prompt = renderer.prompt(conversation)
        assert not isinstance(prompt, Drop), f"{conversation.address} was proven, but has no served prompt"
        if parse_object(prompt.reference) is None:
            raise _not_a_task(conversation, prompt.reference[:SHOWN_CHARACTERS])
        prompts.append(prompt)
        asked = [one.content or "" for one in conversation.messages if one.role == "user"]
        words.append(asked[-1] if asked else "")
    return tuple(prompts), tuple(words)


def _not_a_task(conversation: Conversation, found: str) -> DataError:
    return DataError(
        "A task row's reply is not a JSON object",
        where=str(conversation.address),
        found=found,
        expected="one JSON object, nothing around it",
        fix="evaluate.task is for data whose replies are JSON; leave it out for other data",
    )


def _common_system_prompt(rows: Sequence[ProvenRow]) -> str | None:
    first = Counter(row.messages[0].content if row.messages[0].role == "system" else None for row, _ in rows)
    prompt, count = first.most_common(1)[0]
    return prompt if 2 * count >= len(rows) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
