"""A task: a labelled table, and templates that make instructions of its rows. One TOML file each."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from tutelage.config.sections import Section, Text
from tutelage.errors import ConfigError, SourceNotFoundError, cause_of
from tutelage.synthesize.tasks.templates import OPTIONS, TaskExpression, TaskTemplate, TemplateProblem

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Step = str | int
Replacement = Annotated[list[str], Field(min_length=2, max_length=2)]


class Column(Section):
    """Where a value comes from, and what is done with it, in the order of these fields."""

    column: Text | Annotated[list[Step], Field(min_length=1)] | None = None
    """A column of the table; a list leads into what the column holds: `["messages", 0, "content"]`."""
    value: Text | None = None
    """In place of `column`: a template over the values above it."""
    json_path: list[Step] | None = Field(default=None, alias="json")
    """The text is JSON, and the value lies there in it; `[]` is all of it."""
    replace: list[Replacement] = Field(default=[])
    """Pairs of a regular expression and what stands in its place."""
    pattern: Text | None = None
    """A regular expression: the value is its first group, or all it matches; a row without a match is dropped."""
    every: Text | None = None
    """The same, and the value is the list of all its matches."""
    labels: dict[str, Text] = Field(default={})
    """Text by label; a row with another label is dropped."""
    default: str | None = None
    """The value of a row that has none; left out, such a row is dropped."""

    @field_validator("pattern", "every")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _require_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _has_one_origin(self) -> Column:
        if (self.column is None) == (self.value is None):
            raise ValueError("needs one of column and value")
        if self.pattern is not None and self.every is not None:
            raise ValueError("has both pattern and every; keep one of them")
        for pattern, _ in self.replace:
            _require_pattern(pattern)
        return self


class Wording(Section):
    """One way to ask. With a target of its own it turns the task around: given is the answer, asked what it answers."""

    input: Text
    target: Text | None = None


class TaskFile(Section):
    """What a task file holds."""

    name: Name
    cluster: Text
    """Which tasks are of one kind: they are held out together."""
    table: Text
    """A file beside the task file or in the data folder, a hub data set, or `package:NAME/PATH`."""
    license: Text | None = None
    """Of the table."""
    origin: Text | None = None
    """Where the table is from, for people."""
    split: Text | None = None
    """Which part of the data set the table is; it stands in the metadata of each row."""
    evaluation_only: bool = False
    """Never trained on, such as a benchmark: its rows become evaluation items, whatever is held out."""
    columns: Annotated[dict[Name, Column], Field(min_length=1)]
    keep: list[Text] = Field(default=[])
    """Expressions over the columns; a row for which one is false is dropped as filtered."""
    target: Text = "{{ answer }}"
    """The reply."""
    choices: Name | Annotated[list[Text], Field(min_length=2)] | None = None
    """All replies there are, or the column that lists them for each row. The target is one of them."""
    rationale: Name | None = None
    """The column with the reasoning that leads to the answer."""
    checks: list[dict[str, Any]] = Field(default=[])
    """How a reply to a held-out row is checked, as in a general set; texts are templates."""
    templates: Annotated[list[Wording], Field(min_length=1)]

    @field_validator("columns", mode="before")
    @classmethod
    def _from_names(cls, columns: Any) -> Any:
        """`answer = "label"` is short for `answer = {column = "label"}`."""
        if not isinstance(columns, dict):
            return columns
        return {name: {"column": column} if isinstance(column, str) else column for name, column in columns.items()}


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled wording; `number` counts from 1, as in the file."""

    number: int
    input: TaskTemplate
    target: TaskTemplate
    turns_around: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A task that was read and checked.

    Attributes:
        file: as it was written.
        path: of the file.
        text: of the file.
        templates: those that can be drawn.
        values: templates of columns that are made of others.
        keep: the conditions on rows.
    """

    file: TaskFile
    path: Path
    text: str
    templates: tuple[Template, ...]
    values: Mapping[str, TaskTemplate]
    keep: tuple[TaskExpression, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def straight(self) -> tuple[Template, ...]:
        """Templates that ask for the answer."""
        return tuple(template for template in self.templates if not template.turns_around)

    @property
    def named_columns(self) -> list[str]:
        """The columns of the table that it reads."""
        paths = [column.column for column in self.file.columns.values() if column.column is not None]
        return list(dict.fromkeys(path if isinstance(path, str) else str(path[0]) for path in paths))


def read_tasks(sources: Sequence[str]) -> list[Task]:
    """The tasks of files and folders, in the order of their names.

    Raises:
        SourceNotFoundError: there is no such file, or no task in a folder.
        ConfigError: a file is no task, or two tasks have one name.
    """
    tasks = [read_task(path) for source in sources for path in _files_of(Path(source).expanduser())]
    by_name: dict[str, Task] = {}
    for task in tasks:
        other = by_name.setdefault(task.name, task)
        if other.path.resolve() != task.path.resolve():
            raise ConfigError(
                f"Two tasks are called {task.name}", where=str(task.path), found=f"the same name in {other.path}",
                expected="a name of its own", fix="rename one of them",
            )  # fmt: skip
    return sorted(by_name.values(), key=lambda task: task.name)


def read_task(path: Path) -> Task:
    """Read a task file, and check all that can be checked without its table.

    Raises:
        SourceNotFoundError: it is not there or cannot be read.
        ConfigError: it is not TOML, or at least one value cannot work; all problems are in the one error.
    """
    try:
        text = path.read_text(encoding="utf-8")
        file = TaskFile.model_validate(tomllib.loads(text))
    except OSError as error:
        raise SourceNotFoundError(
            "A task file cannot be read", where=str(path), found=cause_of(error), fix="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise _problem_error(path, [f"it is not UTF-8: {error.reason}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise _problem_error(path, [f"it is not valid TOML: {error}"]) from error
    except ValidationError as error:
        raise _problem_error(path, list(_problems_in(error))) from error
    problems: list[str] = []
    task = _compiled(file, path, text, problems)
    if problems:
        raise _problem_error(path, problems)
    return task


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        raise SourceNotFoundError(
            "The folder holds no task", where=str(path), expected="files that end in .toml", fix="name the right folder"
        )
    return files


def _compiled(file: TaskFile, path: Path, text: str, problems: list[str]) -> Task:
    known = list(file.columns)
    check = _NameCheck(problems)
    values = {
        name: check.template(column.value, known[: known.index(name)], f"columns.{name}.value")
        for name, column in file.columns.items()
        if column.value is not None
    }
    target = check.template(file.target, known, "target")
    templates = []
    for number, wording in enumerate(file.templates, start=1):
        turned = wording.target is not None
        names = [*known, *([OPTIONS] if file.choices is not None and not turned else [])]
        own = target if wording.target is None else check.template(wording.target, known, f"templates {number}, target")
        templates.append(Template(number, check.template(wording.input, names, f"templates {number}"), own, turned))
    if all(template.turns_around for template in templates):
        problems.append("templates: every one has a target of its own; at least one must ask for the answer")
    for place, name in (("choices", file.choices), ("rationale", file.rationale)):
        if isinstance(name, str):
            check.names([name], known, place)
    for number, asked in enumerate(file.checks, start=1):
        for value in _texts_in(asked):
            check.template(value, known, f"checks {number}")
    keep = tuple(check.expression(condition, known, "keep") for condition in file.keep)
    return Task(file, path, text, tuple(templates), values, keep)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)


class _NameCheck:
    """Compiles texts, and notes those that are wrong, or name what is not there."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def template(self, text: str, known: Sequence[str], place: str) -> TaskTemplate:
        try:
            template = TaskTemplate(text)
        except TemplateProblem as problem:
            self._problems.append(f"{place}: {problem}")
            return TaskTemplate("")
        self.names(template.names, known, place)
        return template

    def expression(self, text: str, known: Sequence[str], place: str) -> TaskExpression:
        try:
            expression = TaskExpression(text)
        except TemplateProblem as problem:
            self._problems.append(f"{place}: {problem}")
            return TaskExpression("true")
        self.names(expression.names, known, place)
        return expression

    def names(self, names: Sequence[str] | frozenset[str], known: Sequence[str], place: str) -> None:
        for name in sorted(set(names) - set(known)):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"the columns are {', '.join(known) or 'none so far'}"
            self._problems.append(f'{place}: names "{name}", which is no column; {hint}')


def _require_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def _problems_in(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        place = ".".join(str(part) for part in detail["loc"]) or "the file"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            known = _fields_at(detail["loc"])
            near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
            message = "is not known; " + (f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}")
        yield f"{place}: {message}"


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    models: dict[Any, type[Section]] = {"columns": Column, "templates": Wording}
    model = models.get(place[0], TaskFile) if len(place) > 1 else TaskFile
    return [field.alias or name for name, field in model.model_fields.items()]


def _problem_error(path: Path, problems: Sequence[str]) -> ConfigError:
    count = len(problems)
    return ConfigError(
        f"{count} problem{'s' if count > 1 else ''} in the task file {path}",
        where=str(path),
        found=problems[0] if count == 1 else "".join(f"\n    - {problem}" for problem in problems),
        expected="a task as docs/synthesize.md describes it",
        fix="correct what is listed above",
    )
