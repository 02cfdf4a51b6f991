"""A run as a Python object: its table, its model's replies, its folder. Torch is imported where a model is asked."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tutelage.api.data import Data, data_keywords
from tutelage.api.messages import Prompts, conversations_of
from tutelage.builders.export.request import PROMPTS, DtypeName, ExportRequest
from tutelage.config.keywords import from_keywords
from tutelage.config.settings import Settings
from tutelage.errors import CheckpointError, SourceNotFoundError, command
from tutelage.report.console.measures import Drawn, MeasuresTable, result_table
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal
from tutelage.runs import folder as run_files
from tutelage.types import Message

if TYPE_CHECKING:
    from tutelage.builders.trained_model import TrainedModel
    from tutelage.evaluate.suite import Metrics

TABLE_COLUMNS = 100


def screen_here(*, stderr: bool = False) -> Screen:
    """Where calls from Python report to: bars on a terminal; elsewhere, as in a notebook, lines of bounded number."""
    terminal = Terminal(stderr=stderr)
    # A notebook's kernel asks for colors by FORCE_COLOR, which rich takes for a terminal.
    return Screen(terminal, most_lines=40, bars=terminal.file.isatty())


class Run:
    """A run that was started before, by its folder; `train` returns one.

    >>> Run(run.folder).result["name"] == run.folder.name
    True

    Attributes:
        folder: holds all of it.
        settings: that it was started with.
        ended: how `train` left it: "finished", "early_stop" or "interrupted"; None for a run that is opened again.

    Raises:
        SourceNotFoundError: there is no run.
        CheckpointError: its settings cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder: Path = run_files.existing_run_folder(os.fspath(folder))
        self.settings: Settings = run_files.read_settings(self.folder)
        self._result: dict[str, Any] = {}
        self._started = self._recorded_start()
        self.ended: str | None = None
        self._opened: dict[str, TrainedModel] = {}

    @property
    def result(self) -> dict[str, Any]:
        """What `result.json` says; empty until the run is finished.

        >>> sorted(run.result["before"]) == sorted(run.result["after"])
        True

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self._result and (self.folder / run_files.RESULT).is_file():
            self._result = run_files.read_result(self.folder)
        return self._result

    def _recorded_start(self) -> str | None:
        """When the run began that is in the folder now; None where nothing readable says so."""
        try:
            return run_files.read_json(self.folder / run_files.RESULT).get("started")
        except (OSError, ValueError):
            return None

    @property
    def ledger(self) -> Mapping[str, Any]:
        """Rows in, kept and dropped, with reasons and samples, as `ledger.json` has them.

        >>> run.ledger["rows_in"] == run.ledger["rows_kept"] + run.ledger["rows_dropped"]
        True
        """
        return run_files.read_json(self.folder / run_files.LEDGER)

    @property
    def report(self) -> Path:
        """The run's page, written anew where it is missing; it needs no network.

        >>> run.report.name
        'report.html'
        """
        path = self.folder / run_files.REPORT
        if not path.is_file():
            from tutelage import report

            return report.write(self.folder)
        return path

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        *,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        seed: int = ...,
        stop: Sequence[str] = ...,
        base: bool = ...,
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: list[str],
        *,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        seed: int = ...,
        stop: Sequence[str] = ...,
        base: bool = ...,
    ) -> list[str]: ...
    def generate(
        self,
        prompt: Prompts,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        base: bool = False,
    ) -> str | list[str]:
        """Reply to a prompt as a server would: the model's own template, the likeliest tokens, until a stop token.

        >>> isinstance(run.generate("Where is my parcel?", max_new_tokens=4), str)
        True
        >>> len(run.generate(["Hello", "Bye"], max_new_tokens=2))
        2
        >>> run.generate("Hello", max_new_tokens=4, temperature=0.8, seed=1) == run.generate(
        ...     "Hello", max_new_tokens=4, temperature=0.8, seed=1
        ... )
        True

        Args:
            prompt: what a user says; or messages (`Message`, or dicts with role and content); or a list of texts, which
                are answered each for itself. Before a text stands the system prompt that most training rows had.
            max_new_tokens: where a reply that never stops is cut.
            temperature: draw tokens, the more freely the higher; 0 takes the likeliest.
            top_k: draw among so many of the likeliest tokens; 0: among all.
            top_p: draw among the likeliest tokens whose probabilities add up to this.
            seed: of what is drawn; the same seed gives the same reply.
            stop: texts that end a reply before them.
            base: ask the model that the run started from.

        Raises:
            SourceNotFoundError: nothing was trained yet.
            TemplateError: the model's template refuses the messages.
            ConfigError: a setting out of its range, or a model that can only be asked for its likeliest reply.
        """
        from tutelage.generate.replies import replies_to
        from tutelage.generate.requests import Sampling

        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

        opened = self._open(base=base)
        conversations, several = conversations_of(prompt, system=opened.system_prompt)
        with opened.as_named("base" if base else "tuned") as model:
            replies = replies_to(
                model,
                opened.renderer,
                conversations,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop_strings=stop,
            )
        return replies if several else replies[0]

    def evaluate(
        self, data: Data | None = None, *, task: Data | None = None, general: Data | None = None, base: bool = False
    ) -> Metrics:
        """Measure what the run trained: on other rows, or again on those that its settings name.

        >>> run.evaluate(rows[:4]).heldout_loss > 0
        True

        Args:
            data: rows to measure the loss on, as for `train`.
            task: rows whose replies are generated and scored.
            general: prompts with checks.
            base: measure the model that the run started from.

        Raises:
            TutelageError: the run is not finished, or the data cannot be used.
        """
        from tutelage.builders.evaluation import evaluate_opened, evaluate_rows

        opened, name = self._open(base=base), "base" if base else "tuned"
        if data is None and task is None and general is None:
            return evaluate_opened(opened, name=name, screen=screen_here(stderr=True))
        data_settings = data_keywords(data=data if data is not None else task, task=task, general=general)
        if "data.train" not in data_settings:
            data_settings["data.train"] = list(self.settings.data.train)
        set_values = self.settings.model_dump(exclude_unset=True)
        format_settings = {
            key: value for key, value in set_values["data"].items() if key in ("format", "columns", "workers")
        }
        set_values["evaluate"] = {
            key: value for key, value in set_values.get("evaluate", {}).items() if key not in ("task", "general")
        }
        evaluation_settings = from_keywords(
            set_values | {"data": format_settings} | data_settings, where="Run.evaluate(...)"
        )
        measures_loss = data is not None
        measured = evaluate_rows(
            opened, evaluation_settings, name=name, screen=screen_here(stderr=True), measures_loss=measures_loss
        )
        return measured.metrics

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        to: str = "hf",
        dial: float | None = None,
        dtype: DtypeName | None = None,
        prompts: int = PROMPTS,
        preferences: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write what was trained in a form that other tools load, proven to be that model; returns where.

        >>> sorted(path.name for path in run.export(folder + "/whole", prompts=2).glob("config.json"))
        ['config.json']

        Args:
            folder: made; refused where it holds something.
            to: "hf", a whole model, an adapter folded into its base; "adapter", the adapter alone, as PEFT loads it; or
                another form that `tutelage export --help` lists.
            dial: a value between the base (0) and what was trained (1), at which the model is written.
            dtype: of the weights; None leaves each as the base stores it.
            prompts: it is loaded in a process of its own and compared with this run on so many; 0 leaves that out.
            preferences: of "dpo-start": a file of pairs; None takes the run's own rows, without a rejected reply.

        Raises:
            ConfigError: no such form; the folder holds something; virtual tokens were trained, which cannot be merged;
                or there is nothing at this value of the dial, or nothing that an adapter could hold.
            SourceNotFoundError: nothing was trained yet.
            SaveError: the disk refuses, or what was written is not the model that was trained: then nothing is left.
        """
        from tutelage.builders.export.targets import export_run

        self._trained()
        screen = screen_here(stderr=True)
        request = ExportRequest(
            self.folder, self.settings, Path(folder), screen, dial=dial, dtype=dtype, prompts=prompts,
            preferences=None if preferences is None else Path(preferences),
        )  # fmt: skip
        return export_run(to, request).path

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """The same as `export(folder)`: one plain model, merged where an adapter was trained.

        >>> run.save(folder + "/saved").name
        'saved'

        Args:
            folder: made; refused where it holds something.

        Raises:
            TutelageError: as `export`.
        """
        return self.export(folder)

    def _trained(self) -> Path:
        trained = self.folder / run_files.trained_name(self.settings)
        if not trained.is_dir():
            raise SourceNotFoundError(
                "This run has no trained weights yet",
                where=str(trained),
                fix=f"let it finish: {command('train', '--resume', self.folder)}",
            )
        if self._started is not None and self._recorded_start() != self._started:
            raise CheckpointError(
                "Another run is in this folder now",
                where=str(self.folder),
                found="another result.json",
                expected="the run that this object was made for",
                fix="open it again with tutelage.Run(folder)",
            )
        return trained

    def _open(self, *, base: bool) -> TrainedModel:
        """The model that answers, kept for the next question; with an adapter one object is both."""
        from tutelage.builders.trained_model import open_trained_model

        self._trained()
        both = self.settings.model.method != "full"
        name = "both" if both else "base" if base else "tuned"
        if name not in self._opened:
            self._opened[name] = open_trained_model(
                str(self.folder), tuned=both or not base, base=base and not both, log=screen_here(stderr=True).log
            )
        return self._opened[name]

    def __repr__(self) -> str:
        if not self.result:
            return f"Run({str(self.folder)!r}), not finished: go on with resume=True"
        stream = io.StringIO()
        console = Terminal(file=stream, width=TABLE_COLUMNS)
        console.print(Drawn(self._table(), title=self.folder.name))
        return stream.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        """The before/after table, for a notebook."""
        if not self.result:
            return f"<p>{html.escape(repr(self))}</p>"
        table = self._table()
        right = 'style="text-align:right"'
        head = "".join(f"<th {right}>{html.escape(heading)}</th>" for heading in table.headings)
        body = "".join(
            f'<tr><td style="text-align:left">{html.escape(name)}</td>'
            + "".join(f"<td {right}>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in table.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
        return (
            f"<table><caption>{html.escape(self.folder.name)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
        )

    def _table(self) -> MeasuresTable:
        return result_table(self.result)
