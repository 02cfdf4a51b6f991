"""One row at every door: the bytes it came as, the conversation, the proven ids, the packed row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tutelage.pack import pack_rows
from tutelage.render import Renderer
from tutelage.render.token_roles import token_roles
from tutelage.render.token_text import CONTEXT, STOP, TRAINED, Markers, colored, token_texts, visible
from tutelage.report.numbers import count, percent
from tutelage.report.role_shares import RoleShares
from tutelage.types import Address, Conversation, Example

RAW_CHARACTERS = 2000


def legend(markers: Markers | None = None) -> Text:
    """What the colors mean, or the markers where there are no colors."""
    if markers is None:
        return Text.assemble(("trained", TRAINED), "  ", ("stop token", STOP), "  ", ("context", CONTEXT))
    return Text(f"{markers.opening}trained{markers.closing}  stop token{markers.stop}  context")


def headline(example: Example) -> Text:
    """Address, lengths and the trained share of one Example."""
    share = example.trained_tokens / len(example.ids)
    part = f" part {example.part}" if example.part else ""
    return Text(
        f"{example.address}{part}: {count(len(example.ids))} tokens, {count(example.trained_tokens)} trained "
        f"({percent(share)}), "
        f"{len(example.turns)} {'turn' if len(example.turns) == 1 else 'turns'}",
        style="bold",
    )


def role_line(shares: RoleShares) -> Text:
    """Whose words the tokens are."""
    line = Text(f"tokens by role: {shares.sentence}")
    if shares.caution:
        line.append(f"\n{shares.caution}", style="yellow")
    return line


def all_doors(
    conversation: Conversation,
    examples: Sequence[Example],
    renderer: Renderer,
    *,
    row_tokens: int,
    markers: Markers | None = None,
    id_markers: Markers | None = None,
) -> RenderableType:
    """The way of one proven row, door by door.

    Args:
        conversation: the row as its author meant it.
        examples: its sequences.
        renderer: what proved them.
        row_tokens: the length of a packed row.
        markers: marks trained tokens where there is no color.
        id_markers: shows the id of each token.
    """
    parts: list[RenderableType] = [Rule("1. the bytes, as they lie in the file", align="left")]
    parts.append(_plain(_raw(conversation.address)))
    parts.append(Rule("2. formats: the conversation", align="left"))
    parts.append(_conversation(conversation))
    for example in examples:
        parts.append(Rule(f"3. render: the proven example {example.part}", align="left"))
        parts += [headline(example), role_line(RoleShares.of([token_roles(conversation, example, renderer)]))]
        parts += [legend(markers), colored(example, renderer.tokenizer, markers=markers, id_markers=id_markers)]
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


def raw_lines(addresses: Iterable[Address], *, characters: int = RAW_CHARACTERS) -> dict[Address, str]:
    """The lines of text at these addresses as they lie in their files, each file read once.

    Addresses that are no line of a plain file, and lines that are there no more, are left out. Longer lines are cut
    after `characters`.
    """
    requested: dict[str, dict[int, Address]] = {}
    for address in addresses:
        if address.unit == "line" and Path(address.file).suffix != ".gz":
            requested.setdefault(address.file, {})[address.number] = address
    texts: dict[Address, str] = {}
    for file, numbers in requested.items():
        if not Path(file).is_file():
            continue
        last = max(numbers)
        with Path(file).open("rb") as stream:
            for number, line in enumerate(islice(stream, last), start=1):
                if number in numbers:
                    text = line.decode("utf-8", errors="replace").rstrip("\n")
                    texts[numbers[number]] = text if len(text) <= characters else text[:characters] + " ..."
    return texts


def _raw(address: Address) -> str:
    if address.unit != "line" or Path(address.file).suffix == ".gz" or not Path(address.file).is_file():
        return f"{address} (not a line of text)"
    return raw_lines([address]).get(address, f"{address} (the file has changed)")


def _plain(text: str) -> Text:
    """Text of a row, which must not steer the terminal."""
    return Text(visible(text, line_ends=False))


def _conversation(conversation: Conversation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("role", style="bold")
    table.add_column("content")
    for tool in conversation.tools:
        table.add_row("(tool)", _plain(str(tool.get("function", tool).get("name", "?"))))
    for message in conversation.messages:
        if message.reasoning:
            table.add_row(f"{message.role} (reasoning)", _plain(message.reasoning))
        if message.content:
            table.add_row(message.role, _plain(message.content))
        for call in message.tool_calls:
            table.add_row(f"{message.role} (call)", _plain(f"{call.name} {dict(call.arguments)}"))
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
