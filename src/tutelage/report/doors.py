"""One row at every door: the bytes it came as, the conversation, the proven ids, the packed row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tutelage.pack import pack_rows
from tutelage.render import Renderer
from tutelage.render.show import CONTEXT, STOP, TRAINED, coloured, token_texts
from tutelage.types import Address, Conversation, Example

RAW_CHARACTERS = 2000


def legend() -> Text:
    """What the colours mean."""
    return Text.assemble(("trained", TRAINED), "  ", ("stop token", STOP), "  ", ("context", CONTEXT))


def headline(example: Example) -> Text:
    """Address, lengths and the trained share of one Example."""
    share = example.trained_tokens / len(example.ids)
    part = f" part {example.part}" if example.part else ""
    return Text(
        f"{example.address}{part}: {len(example.ids)} tokens, {example.trained_tokens} trained ({share:.0%}), "
        f"{len(example.turns)} {'turn' if len(example.turns) == 1 else 'turns'}",
        style="bold",
    )


def all_doors(
    conversation: Conversation, examples: Sequence[Example], renderer: Renderer, *, row_tokens: int
) -> RenderableType:
    """The way of one proven row, door by door."""
    parts: list[RenderableType] = [Rule("1. the bytes, as they lie in the file", align="left")]
    parts.append(Text(_raw(conversation.address)))
    parts.append(Rule("2. formats: the conversation", align="left"))
    parts.append(_conversation(conversation))
    for example in examples:
        parts.append(Rule(f"3. render: the proven example {example.part}", align="left"))
        parts += [headline(example), legend(), coloured(example, renderer.tokenizer)]
        parts.append(Rule("4. render: ids and weights of each trained turn", align="left"))
        parts.append(_turns(example, renderer))
    parts.append(Rule("5. pack: the row a model would be fed, this example alone", align="left"))
    for row in pack_rows(examples, row_tokens=row_tokens):
        parts.append(
            Text(
                f"{len(row.ids)} tokens, documents of {', '.join(map(str, row.document_tokens))} tokens, "
                f"positions {row.positions[0]}..{row.positions[-1]}, {row.trained_tokens} trained tokens; "
                f"loss = sum over them / their count in the whole batch"
            )
        )
    return Group(*parts)


def _raw(address: Address) -> str:
    path = Path(address.file)
    if address.unit != "line" or path.suffix == ".gz" or not path.is_file():
        return f"{address} (not a line of text)"
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == address.number:
                text = line.decode("utf-8", errors="replace").rstrip("\n")
                return text if len(text) <= RAW_CHARACTERS else text[:RAW_CHARACTERS] + " ..."
    return f"{address} (the file has changed)"


def _conversation(conversation: Conversation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("role", style="bold")
    table.add_column("content")
    for tool in conversation.tools:
        table.add_row("(tool)", Text(str(tool.get("function", tool).get("name", "?"))))
    for message in conversation.messages:
        if message.reasoning:
            table.add_row(f"{message.role} (reasoning)", Text(message.reasoning))
        if message.content:
            table.add_row(message.role, Text(message.content))
        for call in message.tool_calls:
            table.add_row(f"{message.role} (call)", Text(f"{call.name} {dict(call.arguments)}"))
    return table


def _turns(example: Example, renderer: Renderer) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("position", "id", "weight", "token"):
        table.add_column(title, justify="right" if title != "token" else "left")
    texts = token_texts(example, renderer.tokenizer)
    for turn in example.turns:
        table.add_row("...", "", "0", Text(f"served prompt, {turn.prompt_end} tokens", style=CONTEXT))
        for position in range(turn.prompt_end, turn.reply_end):
            stop = position == turn.reply_end - 1 and turn.ends_with_stop
            table.add_row(
                str(position),
                str(example.ids[position]),
                f"{example.weights[position]:g}",
                Text(repr(texts[position])[1:-1], style=STOP if stop else TRAINED),
            )
    return table
