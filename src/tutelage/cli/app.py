"""Gathers the commands and turns errors into a few helpful lines."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer.main import get_command

from tutelage.cli.chat import chat
from tutelage.cli.check import check
from tutelage.cli.compare import compare
from tutelage.cli.crash import STATUS, crash_lines, of_the_system
from tutelage.cli.curate import curate
from tutelage.cli.demonstrate import demonstrate
from tutelage.cli.doctor import doctor
from tutelage.cli.evaluate import evaluate
from tutelage.cli.export import export
from tutelage.cli.outlet import Outlet, OutputEndedError, open_streams
from tutelage.cli.plan import plan
from tutelage.cli.prefer import prefer
from tutelage.cli.report import report
from tutelage.cli.see import see
from tutelage.cli.serve import serve
from tutelage.cli.synthesize import synthesize
from tutelage.cli.train import train
from tutelage.errors import ConfigError, DependencyError, TutelageError, shell_word
from tutelage.report.console.terminal import Terminal, printable

LIBRARIES = {"bitsandbytes", "huggingface_hub", "peft", "safetensors", "tokenizers", "torch", "transformers"}
LONGEST_NOTE = 400
_NO_CHOICE = re.compile(r"'(?P<given>[^']*)' is not one of (?P<choices>.*)\.\Z", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'")
TRAINING_PACKAGES = ("torch", "transformers", "peft", "safetensors", "accelerate", "gguf")
"""Those of the extra `train`, without which only looking at data works."""

app = typer.Typer(
    help="Supervised fine-tuning that shows its work.\n\n"
    "Look at data first (see, check), curate it, then train, then talk to the result (chat).",
    epilog="A first run: tutelage train recipes/quickstart.toml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    see, check, curate, demonstrate, plan, train, evaluate, compare, prefer, chat, serve, export, report, doctor,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
GROUPS = {"synthesize": synthesize}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def _print_version(requested: bool) -> None:
    if requested:
        Terminal().write_line(f"tutelage {metadata.version('tutelage')}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program, and end with its status.

    0 is a command that did what it was asked, also where nobody read all of its output; 1 an error meant for people;
    2 a wrong command line; 70 a fault of tutelage itself (`cli.crash`); 130 a command that Ctrl-C ended.
    """
    open_streams()
    # On AVX512-BF16 it misses a kernel from the hub, which `model.quantization` keeps it from using.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Rows differ in length, and oneDNN keeps up to 1,024 compiled products for past shapes; see docs/log.md.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    with redirect_stdout(Outlet(sys.stdout)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        warnings.showwarning = _note_of(set())
        status = _status(sys.argv[1:])
    sys.exit(status)


def _note_of(printed_texts: set[str]) -> Callable[..., None]:
    """What shows a library's warning: one line, once, without the line of code that it came from."""

    def show(message: Warning | str, _category: type[Warning], filename: str, *_where: object) -> None:
        text = " ".join(str(message).split())
        if text not in printed_texts and _speaks_for_all():
            printed_texts.add(text)
            library = next(
                (directory for directory in reversed(Path(filename).parts) if directory in LIBRARIES), "a library"
            )
            _tell(f"note, from {library}: {text[:LONGEST_NOTE]}")

    return show


def _status(arguments: list[str]) -> int:
    """Run a command; errors become a few lines on standard error, and a status."""
    try:
        with suppress(BrokenPipeError):  # standard error that nobody reads
            return _ended(arguments)
    except OutputEndedError:
        return 0
    except KeyboardInterrupt:
        if _speaks_for_all():
            _tell("stopped")
        return 130
    except TutelageError as error:
        _tell_error(str(error))
        return 1
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last door: what nothing foresaw becomes a report
        _tell_error("\n".join(crash_lines(error, arguments)))
        return STATUS
    return 0


def _ended(arguments: list[str]) -> int:
    for argument in arguments:
        if not argument.isprintable() and argument != argument.encode("utf-8", "replace").decode("utf-8"):
            raise ConfigError(
                "A word of the command line is not text in UTF-8",
                found=shell_word(argument),
                expected="UTF-8, as settings and reports are written in",
                fix="rename the file, or make a link to it with a plain name: ln -s FILE NAME",
            )
    try:
        with get_command(app).make_context("tutelage", list(arguments)) as context:
            context.command.invoke(context)
        status = 0
    except typer.Exit as ending:
        status = ending.exit_code
    except typer.Abort:  # a question of ours, answered by Ctrl-C or the end of the input
        raise KeyboardInterrupt from None
    except typer.TyperException as error:  # wrong options and arguments
        if message := error.format_message():  # of no arguments at all the help has been shown
            command_names = {*GROUPS, *(command.__name__ for command in COMMANDS)}
            command_words = arguments[:1] if set(arguments[:1]) & command_names else []
            _tell_error(f"{_plain(message)}\n  do:       {' '.join(['tutelage', *command_words, '--help'])}")
        status = error.exit_code
    except OSError as error:
        system_error_report = of_the_system(error)
        if system_error_report is None:
            raise
        raise system_error_report from error
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        raise DependencyError(
            f"This command needs the package {error.name}", fix="pip install 'tutelage[train]'"
        ) from error
    sys.stdout.flush()
    return status


def _plain(message: str) -> str:
    """What typer says of an option's value, without the name of an exception, and with the nearest value there is."""
    message = message.replace(": Value error, ", ": ")
    choice = _NO_CHOICE.search(message)
    near = get_close_matches(choice["given"], _QUOTED.findall(choice["choices"]), n=1) if choice else []
    return f"{message} Did you mean '{near[0]}'?" if near else message


def _speaks_for_all() -> bool:
    """Whether this is the process of a run that says what is the same for all of them."""
    return os.environ.get("RANK", "0") == "0"


def _tell_error(text: str) -> None:
    first, *further_lines = text.split("\n")
    with suppress(OSError):
        errors = Terminal(stderr=True)
        errors.print(Text.assemble(("error: ", "bold red"), printable(first)), soft_wrap=True)
        for line in further_lines:
            errors.write_line(line)


def _tell(text: str) -> None:
    with suppress(OSError):
        Terminal(stderr=True).write_line(text)
