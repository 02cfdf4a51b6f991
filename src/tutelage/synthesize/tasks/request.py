"""What is asked for: which tasks are trained and which held out, and the rows of the first as a curation reads them.

A curation does the rest: what is dropped is in its ledger, its step `mix` weighs the tasks, its card has the licenses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tutelage import formats
from tutelage.config import Settings
from tutelage.config.curation import CurateSettings
from tutelage.config.synthesis import TaskSettings
from tutelage.curate.request import CurationRequest
from tutelage.curate.token_counts import token_counts
from tutelage.errors import ConfigError
from tutelage.formats.sources import SourceFile
from tutelage.ledger import Ledger
from tutelage.synthesize.tasks.rendering import Counter, Pool, Renderer
from tutelage.synthesize.tasks.table import Note, TaskRow, table_files, table_source, task_rows
from tutelage.synthesize.tasks.task import Task
from tutelage.system.seals import file_sha256
from tutelage.system.source_code import source_code_sha256
from tutelage.types import Address, Conversation, Drop

ROOM = ("tutelage.synthesize", "tutelage.synthesize.tasks")
CAP, LIMIT = 30_000, 3_000
"""Most rows of a task, and rows at which its rate stops to grow. Source: Wei et al. 2022 (FLAN), section 2.4;
google-research/FLAN, flan/tasks.py line 66, flan/mixtures.py line 25."""
Near = Mapping[str, Mapping[Address, str]]
"""By task: the rows that are near-duplicates of held-out rows, and what shows it."""


@dataclass(frozen=True)
class TaskRequest(CurationRequest):
    """A curation whose rows are made of the rows of tasks.

    Attributes:
        tasks: those that are trained.
        making: forms and lengths.
        tables: where the table of each task is, by its name.
        near: rows that are like held-out ones, and go.
        count_by: a tokenizer.json; None counts no tokens.
    """

    tasks: tuple[Task, ...] = ()
    making: TaskSettings = field(default_factory=TaskSettings)
    tables: Mapping[str, str] = field(default_factory=dict)
    near: Near = field(default_factory=dict)
    count_by: Path | None = None

    def read(
        self,
        ledger: Ledger,
        files: Sequence[SourceFile],  # noqa: ARG002 - they are hashed by who asks; each task reads its own of them
        *,
        max_rows: int | None = None,
        begin: formats.Begin = lambda _file, _rows, _rows_before: None,  # noqa: ARG002 - a table may be of several tasks
    ) -> Iterator[Conversation]:
        """The instructions of all tasks, in their order; of each task at most `max_rows` rows."""
        for task in self.tasks:
            yield from self.of_task(task, ledger, max_rows=max_rows)

    @property
    def reading_facts(self) -> list[Any]:
        """Tasks, settings, what is held out, and the code of this room."""
        return [
            *super().reading_facts,
            self.seed,
            self.making.model_dump(),
            [[task.name, task.text, self.tables[task.name]] for task in self.tasks],
            {task: {str(address): said for address, said in rows.items()} for task, rows in self.near.items()},
            None if self.count_by is None else file_sha256(self.count_by),
            source_code_sha256(ROOM),
        ]

    def counter(self) -> Counter | None:
        """Counts tokens, where a tokenizer is named."""
        if self.count_by is None:
            return None
        content = self.count_by.read_text(encoding="utf-8")
        return lambda text: token_counts([text], content)[0]

    def of_task(
        self, task: Task, ledger: Ledger | None = None, *, max_rows: int | None = None
    ) -> Iterator[Conversation]:
        """The instructions of one task; every row is counted in the ledger, where there is one."""
        books = Ledger() if ledger is None else ledger
        pool = None
        if self.making.few_shot or self.making.few_shot_chain_of_thought:
            pool = Pool(task, (row for row in self._rows(task, max_rows, _silent) if isinstance(row, TaskRow)))
        renderer = Renderer(task, self.making, self.seed, pool=pool, count=self.counter())
        for row in self._rows(task, max_rows, books.note):
            books.enter()
            made = row if isinstance(row, Drop) else renderer.conversation(row)
            if isinstance(made, Drop):
                books.drop(replace(made, detail=f"{task.name}: {made.detail}"))
            else:
                yield made

    def _rows(self, task: Task, max_rows: int | None, note: Note) -> Iterator[TaskRow | Drop]:
        near = self.near.get(task.name, {})
        for row in task_rows(task, table_files(self.tables[task.name], note), max_rows=max_rows, note=note):
            if isinstance(row, TaskRow) and row.address in near:
                yield Drop(row.address, "near_held_out", near[row.address])
            else:
                yield row


def _silent(_text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Division:
    """The tasks of a run.

    Attributes:
        trained: whose rows are trained on.
        held_out: whose rows become evaluation items.
        tables: where the table of each is, by its name.
    """

    trained: tuple[Task, ...]
    held_out: tuple[Task, ...]
    tables: Mapping[str, str]


def divided(tasks: Sequence[Task], settings: TaskSettings) -> Division:
    """Which tasks are trained and which held out.

    Raises:
        ConfigError: a cluster to hold out that no task is in, or nothing is left to train on.
        SourceNotFoundError: a table that is not there.
    """
    clusters = sorted({task.file.cluster for task in tasks})
    for name in settings.hold_out:
        if name not in clusters:
            raise ConfigError(
                f"No task is in the cluster '{name}'", where="synthesize.tasks.hold_out", found=name,
                expected=", ".join(clusters), fix="name one of these; --list shows the tasks of each",
            )  # fmt: skip
    out = {task.name for task in tasks if task.file.evaluation_only or task.file.cluster in settings.hold_out}
    trained = tuple(task for task in tasks if task.name not in out)
    if not trained:
        raise ConfigError(
            "No task is left to train on", where="synthesize.tasks.hold_out",
            found=", ".join(f"{task.name} ({task.file.cluster})" for task in tasks),
            expected="at least one task outside of what is held out", fix="hold out fewer clusters, or name more tasks",
        )  # fmt: skip
    tables = {task.name: table_source(task, settings.data_folder) for task in tasks}
    return Division(trained, tuple(task for task in tasks if task.name in out), tables)


def curation_of(settings: Settings) -> CurateSettings:
    """The curation of instructions: the settings, and FLAN's mixture where they do not say otherwise."""
    curate, asked = settings.curate, settings.curate.mix.model_fields_set
    flan = {"field": "task", "caps": {"*": CAP}, "limit": LIMIT}
    mix = curate.mix.model_copy(update={name: value for name, value in flan.items() if name not in asked})
    steps = curate.steps if "steps" in curate.model_fields_set else ["mix"]
    return curate.model_copy(update={"mix": mix, "steps": steps})


def request_of(
    settings: Settings,
    division: Division,
    out: Path,
    *,
    near: Near | None = None,
    max_rows: int | None = None,
    workers: int | None = None,
) -> TaskRequest:
    """What a curation is asked for.

    Args:
        settings: all of them.
        division: the tasks.
        out: folder of the output.
        near: rows like held-out ones.
        max_rows: of each table; None reads all.
        workers: processes; None takes one for each core, up to 4.

    Raises:
        ConfigError: the tokenizer is not there.
    """
    tables = division.tables
    curate = curation_of(settings)
    licenses = {tables[task.name]: task.file.license for task in division.trained if task.file.license is not None}
    curate = curate.model_copy(update={"licenses": licenses | curate.licenses})
    return TaskRequest(
        sources=tuple(dict.fromkeys(tables[task.name] for task in division.trained)),
        out=out,
        settings=curate,
        seed=settings.seed,
        max_rows=max_rows,
        tokenizer=tokenizer_of(settings.synthesize.tasks),
        workers=workers,
        tasks=division.trained,
        making=settings.synthesize.tasks,
        tables=tables,
        near=near or {},
        count_by=tokenizer_of(settings.synthesize.tasks),
    )


def tokenizer_of(settings: TaskSettings) -> Path | None:
    """The tokenizer.json that lengths are counted by.

    Raises:
        ConfigError: it is named and not there.
    """
    if settings.tokenizer is None:
        return None
    path = Path(settings.tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            "There is no such tokenizer", where="synthesize.tasks.tokenizer", found=str(path),
            expected="a tokenizer.json, or the folder of a model with one", fix="name it, or leave it out",
        )  # fmt: skip
    return path
