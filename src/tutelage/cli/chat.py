"""`chat`: reads questions from a terminal or a pipe, writes replies as they are generated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tutelage.cli.run_options import Adapters, Run
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError
from tutelage.render import Renderer, Tokenizer
from tutelage.report.console.terminal import Terminal
from tutelage.types import Message

if TYPE_CHECKING:
    from tutelage.builders.trained_model import TrainedModel
    from tutelage.generate.requests import Sampling


def chat(
    run: Run,
    *,
    base: Annotated[bool, typer.Option("--base", help="Talk to the original model.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Ask both, side by side.")] = False,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Ask this once and stop.")] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="System prompt; default: the one most training rows had.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, max=LARGEST_COUNT, help="Longest reply.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Draw tokens, the more freely the higher; 0: the likeliest.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw among the likeliest tokens that make up this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn: the same seed, the same reply.")] = 0,
    adapter: Adapters = None,
) -> None:
    """Talk to what a run trained. /help lists what can be said beside questions, /quit or Ctrl-D ends.

    Questions may also come from a pipe. With --adapter NAME=FOLDER_OR_RUN more adapters can be asked: /use NAME.
    """
    if base and compare:
        raise ConfigError("--base and --compare contradict each other", fix="give one of them")
    from tutelage.builders.named_adapters import named_adapters
    from tutelage.builders.trained_model import open_trained_model
    from tutelage.generate.requests import Sampling

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    out = Terminal()
    named = named_adapters(adapter or [])
    tuned = not base or bool(named)
    trained_model = open_trained_model(run, tuned=tuned, base=base or compare, adapters=named, log=out.log)
    chat_session(
        trained_model,
        out,
        compare=compare,
        base=base,
        prompt=prompt,
        system=system,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
    )


HELP = (
    ("/use NAME", "another one answers from here on; the conversation goes on"),
    ("/base, /tuned", "the original model, or what the run trained, answers"),
    ("/both", "they answer side by side"),
    ("/adapters", "who can answer"),
    ("/system TEXT", "another system prompt, and a new conversation; without TEXT: none"),
    ("/reset", "a new conversation"),
    ("/quit", "ends, as Ctrl-D does"),
)


@dataclass
class _Table:
    """Who answers, and what each was told and said.

    Attributes:
        opening: turns that each conversation begins with.
        answering: names, of those that the run's models answer to.
        histories: of each of them.
    """

    opening: list[Message]
    answering: list[str]
    histories: dict[str, list[Message]] = field(default_factory=dict)

    def start_over(self) -> None:
        """Forget what was said."""
        self.histories = {name: list(self.opening) for name in self.answering}

    def seat(self, names: list[str]) -> None:
        """Let these answer from here on; who comes new takes over the conversation of the first that answered."""
        said = self.histories[self.answering[0]]
        self.histories = {name: list(self.histories.get(name, said)) for name in names}
        self.answering = names


class _Printer:
    """Prints ids as text as soon as they form whole characters."""

    def __init__(self, out: Terminal | None, tokenizer: Tokenizer) -> None:
        self._out, self._tokenizer = out, tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def put(self, token: int) -> None:
        """Take the next id."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if self._out is not None and not text.endswith("\ufffd"):
            self._out.print(Text(text[self._shown :]), end="", soft_wrap=True)
            self._shown = len(text)

    def end(self) -> None:
        """The reply is complete."""
        if self._out is not None:
            self._out.print()


def chat_session(
    trained_model: TrainedModel,
    out: Terminal,
    *,
    compare: bool,
    base: bool,
    prompt: str | None,
    system: str | None,
    max_new_tokens: int,
    sampling: Sampling,
) -> None:
    """Ask and answer until the questions end.

    Args:
        trained_model: the run's models.
        out: where replies go.
        compare: ask all models, side by side.
        base: ask the original one first.
        prompt: the only question; None reads questions.
        system: system prompt; None takes the one that most training rows had, an empty one asks for none.
        max_new_tokens: longest reply.
        sampling: how tokens are chosen.
    """
    from tutelage.model.attention.packed import use_generation_attention

    for model in (trained_model.tuned, trained_model.base):
        if model is not None:
            use_generation_attention(model)
    system_prompt = trained_model.system_prompt if system is None else system
    opening = [Message("system", system_prompt)] if system_prompt else []
    if system_prompt and prompt is None:
        out.print(Text(f"system: {system_prompt}", style="dim"))
    table = _Table(opening, list(trained_model.names) if compare else ["base" if base else "tuned"])
    table.start_over()
    for question in _questions(out, prompt):
        if prompt is None and question.startswith("/") and _obeyed(out, trained_model, table, question):
            continue
        replies = {}
        for name in table.answering:
            history = table.histories[name]
            history.append(Message("user", question))
            stream = None if len(table.answering) > 1 else out
            with trained_model.as_named(name) as model:
                replies[name] = _reply(model, trained_model.renderer, history, stream, max_new_tokens, sampling)
            history.append(Message("assistant", replies[name]))
        if len(table.answering) > 1:
            _side_by_side(out, replies)


def _obeyed(out: Terminal, trained_model: TrainedModel, table: _Table, line: str) -> bool:
    """Do what a command says; False where the line is none, as a path may be."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command == "/help":
        for form, sentence in HELP:
            out.print(Text(f"{form:<14} {sentence}", style="dim"))
    elif command == "/reset":
        table.start_over()
    elif command == "/system":
        table.opening = [Message("system", argument)] if argument else []
        table.start_over()
    elif command == "/both":
        _seat(out, trained_model, table, ["base", "tuned"])
    elif command in ("/base", "/tuned"):
        _seat(out, trained_model, table, [command[1:]])
    elif command == "/use" and argument:
        _seat(out, trained_model, table, [argument])
    elif command in ("/use", "/adapters"):
        _show_names(out, trained_model, table)
    else:
        return False
    return True


def _seat(out: Terminal, trained_model: TrainedModel, table: _Table, names: list[str]) -> None:
    missing = [name for name in names if name not in trained_model.names]
    if not missing:
        table.seat(names)
        return
    out.print(Text(f"There is no '{missing[0]}' here.", style="yellow"))
    if missing[0] in ("base", "tuned"):
        out.print(Text("Start with --compare, which opens both.", style="dim"))
    _show_names(out, trained_model, table)


def _show_names(out: Terminal, trained_model: TrainedModel, table: _Table) -> None:
    names = (f"[{name}]" if name in table.answering else name for name in trained_model.names)
    out.print(Text("  ".join(names), style="dim"))


def _questions(out: Terminal, prompt: str | None) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    while True:
        try:
            line = out.input(Text("> ", style="bold")) if sys.stdin.isatty() else next(sys.stdin).rstrip("\n")
        except (EOFError, StopIteration, KeyboardInterrupt):
            out.print()
            return
        if line.strip() in ("/quit", "/exit"):
            return
        if line.strip():
            yield line.strip()


def _reply(
    model: Any, renderer: Renderer, history: list[Message], out: Terminal | None, limit: int, sampling: Sampling
) -> str:
    from tutelage.generate.replies import served_ids, streamed_reply

    printer = _Printer(out, renderer.tokenizer)
    reply = streamed_reply(
        model,
        renderer.tokenizer,
        served_ids(renderer, history),
        max_new_tokens=limit,
        on_token=printer.put,
        sampling=sampling,
    )
    printer.end()
    return reply


def _side_by_side(out: Terminal, replies: dict[str, str]) -> None:
    table = Table(expand=True)
    for name in replies:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(Text(reply) for reply in replies.values()))
    out.print(table)
