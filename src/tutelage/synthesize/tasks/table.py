"""The rows of a task's table, as the values that its templates name; each goes on whole, or is dropped with a reason.

A column that a row lacks is an error of the task file and ends the command; a value that is empty is a row's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, DataError, SourceNotFoundError
from tutelage.formats.names import fields_for
from tutelage.formats.rawrow import RawRow
from tutelage.formats.shapes import ShapeTable
from tutelage.formats.sniff import sniff
from tutelage.formats.sources import SourceFile, find_files
from tutelage.formats.survey import raw_rows
from tutelage.synthesize.tasks.task import Column, Step, Task
from tutelage.synthesize.tasks.templates import TemplateProblem
from tutelage.types import Address, Drop

SHOWN_CHARACTERS = 80
PACKAGE = "package:"
"""What a table begins with that an installed package carries: `package:NAME/PATH`."""
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row as a task reads it.

    Attributes:
        address: of the row in the table.
        values: by the names of the task's columns.
    """

    address: Address
    values: Mapping[str, Any]

    def identity(self, task: str) -> bytes:
        """16 bytes that hang on the task and on what the row holds, not on its place: what is drawn for it."""
        text = json.dumps([task, self.values], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def table_source(task: Task, data_folder: str | None) -> str:
    """Where the task's table is: in the data folder, beside the task file, from the current folder, or in a package.

    Raises:
        ConfigError: there is no such data folder.
        SourceNotFoundError: a path that is in none of them, or a package that is not installed.
    """
    table = task.file.table
    if table.startswith(PACKAGE):
        return _in_package(task, table.removeprefix(PACKAGE))
    if data_folder and not Path(data_folder).expanduser().is_dir():
        raise ConfigError(
            "There is no such folder of tables",
            where="--data-folder, or synthesize.tasks.data_folder",
            found=data_folder,
            expected="a folder",
            fix="write its name as it is, or leave it out: tables are then looked for beside the task files, and here",
        )
    folders = [*([Path(data_folder).expanduser()] if data_folder else []), task.path.parent, Path()]
    for folder in folders:
        if (folder / table).exists():
            return str(folder / table)
    if "/" in table and not Path(table).suffix and not table.startswith((".", "/", "~")):
        return table  # a hub data set, as `find_files` reads it
    raise SourceNotFoundError(
        f"The table of the task {task.name} is not there",
        where=str(task.path),
        found=f"no {table} in {' or '.join(map(str, folders))}",
        expected="the table that the task file names",
        fix="name its folder with --data-folder, or leave such tasks out with --skip-missing",
    )


def _in_package(task: Task, table: str) -> str:
    """The path of a table that an installed package carries; the package is not run.

    Raises:
        SourceNotFoundError: it is not installed, or has no such file.
    """
    name, _, inside = table.partition("/")
    # A name with a dot would have what stands before it imported, and so run.
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    for folder in () if package is None else package.submodule_search_locations or ():
        if inside and (Path(folder) / inside).is_file():
            return str(Path(folder) / inside)
    raise SourceNotFoundError(
        f"The table of the task {task.name} is not there",
        where=str(task.path),
        found=f"no package {name} is installed" if package is None else f"the package {name} has no {inside}",
        expected=f"{table} in the installed package",
        fix=f"pip install {name}, or leave such tasks out with --skip-missing",
    )


def table_files(source: str, note: Note) -> list[SourceFile]:
    """The files of a table."""
    return find_files([source], note)


def task_rows(
    task: Task, files: list[SourceFile], *, max_rows: int | None = None, note: Note = lambda _text: None
) -> Iterator[TaskRow | Drop]:
    """The rows of a table in their order, each read or dropped.

    Args:
        task: what is read of them.
        files: of the table.
        max_rows: of all files together; None reads all.
        note: told what is worth saying of a file.

    Raises:
        DataError: a row lacks a column, or a value does not fit the task's own templates.
    """
    return islice(_all_rows(task, files, note), max_rows)


def _all_rows(task: Task, files: list[SourceFile], note: Note) -> Iterator[TaskRow | Drop]:
    columns = {name: name for name in task.named_columns}
    table = ShapeTable(fields_for(None))
    for file in files:
        kind = sniff(file.path, file.display_name).kind
        for raw in raw_rows(file, kind, table=table, columns=columns, note=note):
            yield _row(task, raw) if isinstance(raw, RawRow) else raw


class MissingValue(Exception):  # noqa: N818 - a row without a value is no error; it becomes a drop
    """A row without a value: its reason, and what is missing."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


def _row(task: Task, raw: RawRow) -> TaskRow | Drop:
    values: dict[str, Any] = {}
    for name, column in task.file.columns.items():
        try:
            values[name] = _value(task, name, column, raw, values)
        except MissingValue as error:
            if column.default is None:
                return Drop(raw.address, error.reason, f"{name}: {error.detail}")
            values[name] = column.default
    for condition in task.keep:
        try:
            if not condition.holds(values):
                return Drop(raw.address, "filtered", f"not so: {condition.text}")
        except TemplateProblem as problem:
            raise template_error(task, raw.address, f"keep: {condition.text}", problem) from problem
    return TaskRow(raw.address, values)


def _value(task: Task, name: str, column: Column, raw: RawRow, values: Mapping[str, Any]) -> Any:
    if column.column is None:
        try:
            value: Any = task.values[name].render(values)
        except TemplateProblem as problem:
            raise template_error(task, raw.address, f"columns.{name}.value", problem) from problem
    else:
        path: list[Step] = [column.column] if isinstance(column.column, str) else column.column
        if str(path[0]) not in raw.fields:
            raise _absent_error(task, name, str(path[0]), raw)
        value = _followed(raw.fields[str(path[0])], path[1:])
    if column.json_path is not None:
        value = _followed(_decoded(value), column.json_path)
    value = _edited(column, value)
    if value is None or value in ("", []) or (isinstance(value, str) and value.isspace()):
        raise MissingValue("missing_value", "is empty")
    return value


def _followed(value: Any, path: list[Step]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            raise MissingValue("missing_value", f"nothing at {step!r}") from None
    return value


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError) as error:
        raise MissingValue("missing_value", f"is no JSON: {error}") from None


def _edited(column: Column, value: Any) -> Any:
    if value is None:
        return None
    text = _text(value)
    for pattern, replacement in column.replace:
        text = re.sub(pattern, replacement.replace("\\", r"\\"), text)  # as it stands: no references to groups
    if column.every is not None:
        return [match[1] if match.re.groups else match[0] for match in re.finditer(column.every, text)]
    if column.pattern is not None:
        match = re.search(column.pattern, text)
        if match is None:
            raise MissingValue("no_match", f"{column.pattern!r} does not match {text[:SHOWN_CHARACTERS]!r}")
        text = match[1] if match.re.groups else match[0]
    if column.labels:
        label = text.strip()
        if label not in column.labels:
            raise MissingValue("unknown_label", f"{label[:SHOWN_CHARACTERS]!r} is none of {', '.join(column.labels)}")
        return column.labels[label]
    return text if isinstance(value, str) or column.replace or column.pattern else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _absent_error(task: Task, name: str, column: str, raw: RawRow) -> DataError:
    return DataError(
        f"A row lacks a column that the task {task.name} names",
        where=str(raw.address),
        found=f"the columns {', '.join(raw.fields)}",
        expected=f'"{column}", for "{name}"',
        fix=f"correct columns.{name} in {task.path}",
    )


def template_error(task: Task, address: Address, place: str, problem: TemplateProblem) -> DataError:
    """The error of a template that a row's values do not fit."""
    return DataError(
        f"A template of the task {task.name} does not fit a row", where=f"{address}, {place}", found=str(problem),
        expected="values for all that the template does", fix=f"correct it in {task.path}",
    )  # fmt: skip
