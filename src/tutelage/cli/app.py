"""Gathers the commands and turns errors into a few helpful lines."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tutelage.cli import data, runs
from tutelage.cli.doctor import doctor
from tutelage.cli.plan import plan
from tutelage.errors import DependencyError, TutelageError

app = typer.Typer(
    help="Supervised fine-tuning that shows its work.\n\n"
    "Look at data first (see, check), then train, then talk to the result (chat).",
    epilog="A first run: tutelage train recipes/quickstart.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(data.see)
app.command()(data.check)
app.command()(plan)
app.command()(runs.train)
app.command()(runs.evaluate)
app.command()(runs.chat)
app.command()(runs.report)
app.command()(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tutelage {metadata.version('tutelage')}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program; errors meant for people end with status 1, a wrong command line with 2, Ctrl-C with 130."""
    errors = Console(stderr=True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # On AVX512-BF16 it misses a kernel that it would fetch from the hub, and that `model.quantise` keeps it from using.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Rows differ in length, and oneDNN keeps up to 1,024 compiled products for past shapes; see docs/log.md.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    try:
        app()
    except TutelageError as error:
        first, *rest = str(error).split("\n")
        errors.print(Text.assemble(("error: ", "bold red"), first), soft_wrap=True)
        for line in rest:
            errors.print(Text(line), soft_wrap=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "transformers", "peft", "safetensors", "accelerate", "gguf"}:
            raise
        missing = DependencyError(f"This command needs the package {error.name}", fix="pip install 'tutelage[train]'")
        errors.print(Text(f"error: {missing}"), soft_wrap=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        errors.print("\nstopped")
        sys.exit(130)
