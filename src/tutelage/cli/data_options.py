"""Options of the commands that look at data, and what they become: a renderer, and sections of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage import config, formats
from tutelage.builders.renderer import renderer_for
from tutelage.config import DataSettings, RenderSettings
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError, shell_word
from tutelage.formats.names import nearest
from tutelage.model.locate import model_folder
from tutelage.render import Renderer
from tutelage.report.console.terminal import Terminal

DEFAULT_MODEL = "smollm2-135m"

Sources = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, or a Hugging Face data set id (owner/name or owner/name:split)."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Whose tokenizer and template: short name, folder, GGUF file or Hub id."),
]
TokenizerFolder = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder with tokenizer.json, or such a file, not the model's.")
]
Template = Annotated[
    str | None,
    typer.Option("--template", help="A Jinja file or a format such as chatml, not the model's own."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of rendering: --set render.empty_reasoning=close (train --explain render)."),
]
Shape = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Shape of the rows: auto, {', '.join(formats.SHAPES)}, or another of docs/formats_shapes.md.",
    ),
]


def _print_formats(asked: bool) -> None:
    if not asked:
        return
    shapes = formats.row_shapes()
    width = max(map(len, shapes))
    out = Terminal()
    for name in ("auto", *formats.SHAPES):
        out.write_line(name)
    for shape in shapes.values():
        out.write_line(f"{shape.name:{width}}  {shape.title} ({shape.outcome})")
    raise typer.Exit


Formats = Annotated[
    bool,
    typer.Option("--formats", is_eager=True, callback=_print_formats, help="List what --format takes, and end."),
]
TreePaths = Annotated[
    str, typer.Option("--tree-paths", help="Of rows that are trees of messages: the kept path, or all of them.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Map columns: prompt=question,response=answer (prompt, response, system, ...)."),
]
MaxTokens = Annotated[
    int, typer.Option("--max-seq-length", min=2, max=LARGEST_COUNT, help="Longer rows are dropped, and counted.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop with an error at the first row that would be dropped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def renderer_from_options(model: str, tokenizer: str | None, settings: RenderSettings) -> Renderer:
    """The renderer of `--model`, or of `--tokenizer`, a folder or a tokenizer.json, in its place.

    Raises:
        TutelageError: there is no such model, or its tokenizer or template cannot be used.
    """
    if tokenizer is not None and Path(tokenizer).is_file():  # a tokenizer.json by itself, whatever its name
        return renderer_for(Path(tokenizer), settings)
    return renderer_for(model_folder(tokenizer or model, weights=False, log=log_to_stderr), settings)


def data_settings(
    sources: list[str],
    *,
    shape: str,
    columns: list[str] | None,
    tree_paths: str = "kept",
    max_rows: int | None = None,
) -> DataSettings:
    """The section `data` as the command line gives it.

    Raises:
        ConfigError: a name is empty, or a format or column map cannot be read.
    """
    if not all(source.strip() for source in sources):
        raise ConfigError(
            "The name of a data file is empty",
            where="the command line",
            found=" ".join(shell_word(source) for source in sources),
            expected="files, folders, globs, or a hub data set",
            fix="give it a name, or leave it out; a shell variable may be empty",
        )
    section: dict[str, Any] = {"train": sources, "format": shape_from(shape), "columns": columns_from(columns)}
    section["tree_paths"] = tree_paths
    if max_rows is not None:
        section["max_rows"] = max_rows
    return config.from_mapping({"model": {"name": DEFAULT_MODEL}, "data": section}, where="the command line").data


def render_settings(template: str | None, changed: list[str] | None) -> RenderSettings:
    """The section `render` as `--template` and `--set` give it.

    Raises:
        ConfigError: a setting is of another section, or cannot be set so.
    """
    for setting in changed or []:
        if not setting.startswith("render."):
            raise ConfigError(
                "Only settings of rendering can be set here",
                found=setting,
                expected="render.FIELD=VALUE",
                fix="tutelage train --explain render lists them",
            )
    section = {"render": {} if template is None else {"template": template}}
    required_sections = {"model": {"name": DEFAULT_MODEL}, "data": {"train": ["-"]}}
    return config.from_mapping(required_sections | section, changed or [], where="--set").render


def shape_from(name: str) -> str:
    """The format that `--format` names.

    Raises:
        ConfigError: there is no such one; the nearest is in the error.
    """
    if name not in ("auto", *formats.SHAPES, *formats.row_shapes()):
        raise ConfigError(
            f"There is no format '{name}'",
            found=name + nearest(name, ["auto", *formats.SHAPES, *formats.row_shapes()]),
            expected=", ".join(("auto", *formats.SHAPES)) + ", or another of docs/formats_shapes.md",
            fix="--format auto",
        )
    return name


def columns_from(pairs: list[str] | None) -> dict[str, str]:
    """The columns that `--columns` maps: field -> column.

    Raises:
        ConfigError: a pair is not of the form name=column.
    """
    mapped = {}
    for pair in (item for argument in pairs or [] for item in argument.split(",")):
        key, equals, column = pair.partition("=")
        if not equals or not key or not column:
            raise ConfigError(
                "A column map cannot be read",
                found=pair,
                expected="name=column",
                fix="--columns prompt=question,response=answer",
            )
        mapped[key.strip()] = column.strip()
    return mapped


def log_to_stderr(text: str) -> None:
    """Print one line of progress on standard error."""
    Terminal(stderr=True).write_line(text)
