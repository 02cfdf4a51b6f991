"""What a generator's reply holds, read strictly: what is not in the asked form is dropped with a reason, never mended.

All forms are lists of numbered items, each part on a line of its own that names it, each item closed by a line `###`:

    1. Instruction: Name the capital of the country.
    1. Input: Peru
    1. Output: Lima
    ###

The closing line, or the next number with its part, is what says that an item is whole: without either it is one that
the token limit cut. So no stop string is needed; Alpaca's, "20.", also ends a reply at "20.5". A number counts with its
part behind it alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.system.chat_questions import last_words
from tutelage.types import Address, Drop

INSTRUCTION, INPUT, OUTPUT = "Instruction", "Input", "Output"
END_MARK = "###"
NO_INPUT = "<none>"
SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a reply: its number, and its parts by name, white space around them aside."""

    address: Address
    parts: dict[str, str]


@dataclass(slots=True)
class _Block:
    """Lines up to a closing line."""

    lines: list[str] = field(default_factory=list)
    is_closed: bool = False


def parse_items(text: str, parts: Sequence[str], *, request: str, first: int = 1, most: int = 20) -> list[Item | Drop]:
    """The items of a reply, and a drop for each that is not whole, in their order.

    Args:
        text: of the reply; reasoning before it and one code fence around it are not part of it.
        parts: names of the parts of each item, in the order that was asked for. Only `INPUT` may be empty.
        request: what the reply answers, for addresses.
        first: the number of the first item; a list may also begin anew with 1.
        most: how many items were asked for; further ones are dropped.
    """
    marker = re.compile(rf"(\d{{1,9}})\. ({'|'.join(map(re.escape, parts))}):(?:\s|$)")
    found: list[Item | Drop] = []
    expected = first
    for block in _blocks(last_words(text), marker, parts[0]):
        start, stray_lines = _start(block, marker, parts[0])
        if found and stray_lines:  # the end of the item before, or a remark: nothing says which
            found[-1] = Drop(found[-1].address, "text_after_end", f"behind {END_MARK}: {_shown(stray_lines)}")
        if start is None:
            continue
        if not found and start == 1:  # a list that was to go on, and begins anew
            first = expected = 1
        address = Address(request, start, "item")
        if start != expected:
            found.append(Drop(address, "wrong_number", f"number {start} where {expected} comes: {_shown(block.lines)}"))
        elif start >= first + most:
            found.append(Drop(address, "beyond_asked", f"{most} were asked for"))
        else:
            found.append(_item(block, marker, parts, address))
        expected = start + 1
    return found or [Drop(Address(request, first, "item"), "no_item", f"the reply begins: {_shown([text])}")]


def parse_yes_or_no(text: str, *, address: Address) -> bool | Drop:
    """True for yes, False for no; any other answer is a drop, whatever it may mean."""
    word = last_words(text).strip().rstrip(".").casefold()
    if word in ("yes", "no"):
        return word == "yes"
    return Drop(address, "no_verdict", f"neither yes nor no: {_shown([text])}")


def _blocks(text: str, marker: re.Pattern[str], opening: str) -> list[_Block]:
    """The reply in pieces that end with a closing line, or where the item with the next number begins."""
    blocks, number = [_Block()], None
    for line in text.replace("\r\n", "\n").split("\n"):
        match = marker.match(line)
        begun = int(match[1]) if match and match[2] == opening else None
        is_next = begun is not None and number is not None and begun == number + 1
        if is_next or line.strip() == END_MARK:
            blocks[-1].is_closed = True
            blocks.append(_Block())
            number = None
        if number is None:
            number = begun
        if line.strip() != END_MARK:
            blocks[-1].lines.append(line)
    return blocks


def _start(block: _Block, marker: re.Pattern[str], opening: str) -> tuple[int | None, list[str]]:
    """The number of a block's item, and what stands before it, which is taken out; None where none begins."""
    for place, line in enumerate(block.lines):
        if (match := marker.match(line)) and match[2] == opening:
            before, block.lines = block.lines[:place], block.lines[place:]
            return int(match[1]), [line for line in before if line.strip()]
    return None, [line for line in block.lines if line.strip()]


def _item(block: _Block, marker: re.Pattern[str], parts: Sequence[str], address: Address) -> Item | Drop:
    if not block.is_closed:
        return Drop(address, "no_end_mark", f"cut, or not closed: {_shown(block.lines[-1:])}")
    texts: list[tuple[str, list[str]]] = []
    for line in block.lines:
        if match := marker.match(line):
            if int(match[1]) != address.number:
                return Drop(address, "no_end_mark", f"the next item begins inside it: {_shown([line])}")
            texts.append((match[2], [line[match.end() :]]))
        else:  # the first line is a mark, so there is a part that this one goes on with
            texts[-1][1].append(line)
    if [name for name, _lines in texts] != list(parts):
        found = ", ".join(name for name, _lines in texts)
        return Drop(address, "wrong_parts", f"{found} where {', '.join(parts)} was asked for")
    joined = {name: "\n".join(lines).strip() for name, lines in texts}
    if INPUT in joined and joined[INPUT].casefold() == NO_INPUT:
        joined[INPUT] = ""
    empty = [name for name, part in joined.items() if not part and name != INPUT]
    if empty:
        return Drop(address, "empty_part", f"nothing behind {empty[0]}")
    return Item(address, joined)


def _shown(lines: Sequence[str]) -> str:
    text = " ".join(" ".join(lines).split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
