"""Settings -> data: everything a run needs before a model is loaded. Imports without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import formats
from tutelage.builders.curation import with_curated_rows
from tutelage.builders.general_text import read_general_texts
from tutelage.builders.renderer import renderer_for
from tutelage.builders.sampler import replay_line, weighted_sources, with_replay_source
from tutelage.builders.task import Task, runnable, task_of
from tutelage.config import Settings
from tutelage.errors import DataError, command
from tutelage.evaluate.choice_items import ChoiceItem, read_choices
from tutelage.evaluate.general import GeneralItem, read_general
from tutelage.evaluate.general_text import GeneralText
from tutelage.evaluate.packaged_sets import packaged_files
from tutelage.formats.data_files import DataFiles
from tutelage.formats.sources import SourceFile, rows_in_memory
from tutelage.ledger import Ledger
from tutelage.pack import Cache, Examples, ExampleStore, JoinedExamples, proven_rows, store_rows
from tutelage.pack.example_store import NO_SYSTEM_PROMPT, Totals
from tutelage.pack.prepared_cache import EntryWriter, key_of, renderer_facts
from tutelage.pack.sampler import Source
from tutelage.render import Renderer
from tutelage.system.files import cache_folder
from tutelage.types import Change, Conversation, Drop, Prompt, Unit

SHOWN_FILES = 4
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run trains on and is tested on, and the books about it.

    `train` and `validation` are read from files as they are asked for; the first ends with what is replayed, which
    `train_totals` leaves out.
    `task_words` are what the users of the task rows said last, `checkers` score the replies; `system_prompt` is the one
    that at least half of the training rows begin with, or None; `data_sha256` has the hash of every file that was read,
    and `examples_sha256` that of what its rows became; `sources` says which examples an epoch visits more often.
    """

    renderer: Renderer
    train: Examples
    validation: Examples
    train_totals: Totals
    task: tuple[Prompt, ...]
    task_words: tuple[str, ...]
    checkers: tuple[str, ...]
    general: tuple[GeneralItem, ...]
    choices: tuple[ChoiceItem, ...]
    texts: tuple[GeneralText, ...]
    system_prompt: str | None
    ledger: Ledger
    data_sha256: dict[str, str]
    examples_sha256: dict[str, str]
    sources: tuple[Source, ...]


def prepare(
    settings: Settings,
    model_folder: Path,
    *,
    ledger_path: Path | None = None,
    cache: Path | None = None,
    log: Say = lambda _text: None,
) -> Prepared:
    """Read, prove and measure out all data of a run.

    Args:
        settings: resolved settings.
        model_folder: its tokenizer and template.
        ledger_path: receives every drop and change, as JSON lines.
        cache: folder in which prepared data is kept and looked for; None keeps none.
        log: told when data was prepared before, and how the task's replies are scored where nobody chose.

    Raises:
        DataError: nothing is left to train on, or for a measure that was asked for; a file changed while it was read;
            or, with data.strict, any row was dropped.
        SaveError: prepared data, or the ledger, cannot be written.
    """
    run_folder = None if ledger_path is None else ledger_path.parent
    with ExitStack() as reading:
        settings = with_curated_rows(settings, run_folder=run_folder, log=log, reading=reading)
        return _prepared(settings, model_folder, ledger_path=ledger_path, cache=cache, log=log)


def _prepared(
    settings: Settings, model_folder: Path, *, ledger_path: Path | None, cache: Path | None, log: Say
) -> Prepared:
    ledger = Ledger(strict=settings.data.strict, path=ledger_path)
    renderer = renderer_for(model_folder, settings.render)
    data, evaluation = settings.data, settings.evaluate
    data_cache = None if cache is None else Cache(cache)
    preparer = _Preparer(settings, renderer, ledger, data_cache, log, DataFiles(ledger.note))
    rows = preparer.prepared(data.train, max_rows=data.max_rows, purpose="train on")
    if data.validation:
        train, validation = rows, preparer.prepared(data.validation, purpose="measure held-out loss on")
    else:
        train, validation = _held_out(rows, data.validation_ratio, settings.seed)
    replay = preparer.replay()
    task = preparer.task(evaluation.task)
    ledger.check()
    _require_held_out(settings, validation, rows)
    general, choices = preparer.general(evaluation.general)
    examples_sha256 = {"train": train.sha256(), "validation": validation.sha256()}
    if replay is not None:
        examples_sha256["replay"] = replay.sha256()
    return Prepared(
        renderer=renderer,
        train=train if replay is None else JoinedExamples(train, replay),
        validation=validation,
        train_totals=train.totals(),
        task=task.prompts,
        task_words=task.questions,
        checkers=task.checkers,
        general=general,
        choices=choices,
        texts=preparer.texts(evaluation.general_text),
        system_prompt=_common_system_prompt(train),
        ledger=ledger,
        data_sha256=preparer.data.sha256,
        examples_sha256=examples_sha256,
        sources=_sources(preparer, train, replay),
    )


def _sources(preparer: _Preparer, train: ExampleStore, replay: ExampleStore | None) -> tuple[Source, ...]:
    data = preparer.settings.data
    sources = weighted_sources(data.train, data.weights, train, files_of=preparer.data.of)
    if replay is None:
        return sources
    counts = len(train), len(replay)
    sources = with_replay_source(sources, task=data.train, replay=data.replayed, counts=counts, ratio=data.replay_ratio)
    preparer.ledger.note(f"Replay: {replay_line(sources)}")
    return sources


def prepared_examples(
    settings: Settings, renderer: Renderer, ledger: Ledger, *, cache: Path | None, log: Say = lambda _text: None
) -> ExampleStore:
    """The Examples of `data.train` alone, without anything held out or measured.

    Args:
        settings: `data` and `pack` are read.
        renderer: proves them.
        ledger: takes the rows.
        cache: as for `prepare`.
        log: as for `prepare`.

    Raises:
        DataError: no row is left; a file changed while it was read; or, where the ledger is strict, one was dropped.
    """
    with ExitStack() as reading:
        settings = with_curated_rows(settings, run_folder=None, log=log, reading=reading)
        kept = None if cache is None else Cache(cache)
        desk = _Preparer(settings, renderer, ledger, kept, log, DataFiles(ledger.note))
        store = desk.prepared(settings.data.train, max_rows=settings.data.max_rows, purpose="train on")
    ledger.check()
    return store


def prepared_cache() -> Path:
    """Where prepared data is kept, beside the converted models."""
    return cache_folder() / "prepared"


@dataclass(frozen=True, slots=True)
class _Preparer:
    """Where the data sets of a run are prepared, with what all of them need."""

    settings: Settings
    renderer: Renderer
    ledger: Ledger
    cache: Cache | None
    log: Say
    data: DataFiles

    def prepared(self, sources: Sequence[str], *, purpose: str, max_rows: int | None = None) -> ExampleStore:
        """The Examples of all rows of the sources: those prepared before, else read and proven now."""
        dropped_before = self.ledger.dropped.copy()
        files = self.data.of(sources)
        key = key_of(self._facts(files, max_rows))
        if self.cache is not None and (entry := self.cache.find(key)) is not None:
            entry.replay_into(self.ledger)
            self.log(f"Prepared before: {entry.rows_in:,} rows of {', '.join(sources)} ({self.cache.folder / key})")
            store = entry.store
        else:
            store = self._prepared_now(sources, files, key, max_rows)
        if not store:
            raise _nothing_left(sources, self.ledger.dropped - dropped_before, purpose)
        for source in sources if len(sources) > 1 else ():
            if not {file.display_name for file in self.data.of([source])} & set(store.files):
                self.ledger.note(f"No row of {source} is left to {purpose}")
        return store

    def _prepared_now(
        self, sources: Sequence[str], files: Sequence[SourceFile], key: str, max_rows: int | None
    ) -> ExampleStore:
        parent = None if self.cache is None else self.cache.folder
        writer = EntryWriter(parent, vocabulary_size=self.renderer.tokenizer.vocabulary_size)
        try:
            with self.data.reading(files, sources) as outcome:
                store = self._written(writer, files, max_rows)
            if self.cache is not None and not outcome.touched:
                self.cache.publish(writer, key)
        finally:
            writer.abandon()  # of a folder that has got its name, or is open, nothing is lost
        return store

    def task(self, sources: Sequence[str]) -> Task:
        """The task prompts of all rows of the sources, and how their replies are scored."""
        if not sources:
            return Task()
        dropped_before = self.ledger.dropped.copy()
        files, settings = self.data.of(sources), self.settings
        # The question is the whole conversation up to its last reply, so one that is too long is never asked in part.
        with self.data.reading(files, sources):
            rows = proven_rows(
                _reader(files, settings),
                self.renderer,
                self.ledger,
                max_seq_length=settings.pack.max_seq_length,
                workers=settings.data.workers,
            )
            task = task_of(rows, self.renderer, settings.evaluate.checkers, log=self.log)
        if not task.prompts:
            raise _nothing_left(sources, self.ledger.dropped - dropped_before, "ask of the task")
        return task

    def replay(self) -> ExampleStore | None:
        """The Examples that some are replayed of; None where none is."""
        data = self.settings.data
        if not data.replayed:
            return None
        trained = {file.display_name for file in self.data.of(data.train)}
        if both := [file.display_name for file in self.data.of(data.replayed) if file.display_name in trained]:
            raise DataError(
                "A file is trained on as a whole, and replayed in part",
                where="data.replay",
                found=", ".join(both[:SHOWN_FILES]),
                expected="files that data.train does not hold",
                fix="take them out of one of the two",
            )
        return self.prepared(data.replayed, purpose="replay")

    def general(self, paths: Sequence[str]) -> tuple[tuple[GeneralItem, ...], tuple[ChoiceItem, ...]]:
        """The items of the general sets: those with checks, and questions with choices."""
        files = [file for path in paths for file in general_files(path)]
        if missing := [file for file in files if not file.path.is_file()]:
            read_general(missing[0].display_name)  # says so
        self.data.take(files)
        with self.data.reading(files):
            items = [item for file in files for item in read_general(*_named(file))]
            choices = tuple(item for file in files for item in read_choices(*_named(file)))
        return runnable(items, unisolated=self.settings.evaluate.unisolated_code), choices

    def texts(self, sources: Sequence[str]) -> tuple[GeneralText, ...]:
        """The general texts."""
        files = self.data.of(sources) if sources else []
        with self.data.reading(files, sources):
            return read_general_texts(files, self.renderer.tokenizer, most_tokens=self.settings.pack.max_seq_length)

    def _facts(self, files: Sequence[SourceFile], max_rows: int | None) -> dict[str, Any]:
        data = self.settings.data
        return {
            "files": [[file.display_name, self.data.sha256[file.display_name]] for file in files],
            "reading": [data.format, data.columns, max_rows, data.tree_paths],
            "renderer": renderer_facts(self.renderer),
            "length": [self.settings.pack.max_seq_length, self.settings.pack.too_long],
        }

    def _written(self, writer: EntryWriter, files: Sequence[SourceFile], max_rows: int | None) -> ExampleStore:
        def record_entry(entry: Drop | Change) -> None:
            writer.record(entry)
            self.ledger.add(entry)

        writer_ledger = Ledger(listener=record_entry)
        pack, data = self.settings.pack, self.settings.data
        store_rows(
            _reader(files, self.settings, max_rows=max_rows),
            self.renderer,
            writer_ledger,
            writer.append,
            max_seq_length=pack.max_seq_length,
            too_long=pack.too_long,
            workers=data.workers,
        )
        self.ledger.enter(writer_ledger.rows_in)
        self.ledger.keep(writer_ledger.rows_kept)
        for note in writer_ledger.notes:
            self.ledger.note(note)
        return writer.finish(writer_ledger)


def _named(file: SourceFile) -> tuple[str, str, Unit]:
    return str(file.path), file.display_name, file.unit


def general_files(path: str) -> tuple[SourceFile, ...]:
    """The files behind a name in `evaluate.general`: rows in memory, a packaged set, or a path."""
    in_memory = rows_in_memory(path)
    return (in_memory,) if in_memory else packaged_files(path) or (SourceFile(Path(path), path),)


def _reader(
    files: Sequence[SourceFile], settings: Settings, *, max_rows: int | None = None
) -> Callable[[Ledger], Iterator[Conversation]]:
    data = settings.data

    def read(reader_ledger: Ledger) -> Iterator[Conversation]:
        return formats.read(
            [],
            ledger=reader_ledger,
            shape=data.format,
            columns=data.columns,
            max_rows=max_rows,
            files=files,
            tree_paths=data.tree_paths,
        )

    return read


def _held_out(rows: ExampleStore, fraction: float, seed: int) -> tuple[ExampleStore, ExampleStore]:
    """Whole rows, never single turns of a row: a split row must not stand on both sides."""
    if fraction == 0.0 or rows.rows < 2:
        return rows, rows[:0]
    order = np.random.default_rng([seed, rows.rows]).permutation(rows.rows)
    count = min(rows.rows - 1, max(1, round(fraction * rows.rows)))
    is_validation = np.zeros(rows.rows, dtype=bool)
    is_validation[order[:count]] = True
    in_validation = is_validation[rows.column("row")]
    return rows.select(np.flatnonzero(~in_validation)), rows.select(np.flatnonzero(in_validation))


def _require_held_out(settings: Settings, validation: ExampleStore, rows: ExampleStore) -> None:
    """Refuse a run that was to measure held-out loss, and perhaps to end early by it, and holds no row out."""
    if settings.data.validation_ratio > 0 and not validation:
        raise DataError(
            "No row can be held out, so held-out loss could not be measured",
            where="data.validation_ratio",
            found=f"{rows.rows} proven row in {', '.join(settings.data.train)}",
            expected="at least two, one of them to train on",
            fix="set data.validation_ratio = 0, or name rows to hold out with data.validation",
        )


def _nothing_left(sources: Sequence[str], dropped: Counter[str], purpose: str) -> DataError:
    return DataError(
        f"Nothing is left to {purpose}",
        where=", ".join(sources),
        found=", ".join(f"{count} rows dropped: {reason}" for reason, count in dropped.most_common(4)) or "no row",
        expected="at least one proven row",
        fix=f"look at the rows and their reasons: {command('check', *sources)}",
    )


def _common_system_prompt(train: ExampleStore) -> str | None:
    _, first = np.unique(train.column("row"), return_index=True)  # one Example for each row
    opening = train.column("system_prompt")[first]
    numbers, counts = np.unique(opening[opening != NO_SYSTEM_PROMPT], return_counts=True)
    if not len(numbers) or 2 * int(counts.max()) < len(opening):
        return None
    return train.system_prompt(int(numbers[counts.argmax()]))
