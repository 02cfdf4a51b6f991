"""Shows an Example to people: trained tokens in color, the served prompt dim, the stop token marked.

Where there is no color (a pipe, NO_COLOR), markers around the trained tokens say the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from rich.console import Console
from rich.text import Text

from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Example

TRAINED, CONTEXT, STOP = "bold green", "dim", "bold black on green"

REPLACEMENT_CHARACTER = "\ufffd"
"""What decoders write for bytes that are no whole character."""

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
LONGEST_CHARACTER = 4
"""Bytes of UTF-8, and so tokens, that one character can need."""

LOOK_AHEAD = 3
"""Pieces that must follow one another in the text before a lost place counts as found again."""
LONGEST_SEARCH = 1024
"""Characters searched for a lost place, so that the work stays linear."""

JOINERS = "\u200c\u200d"
"""Invisible, but part of how many scripts are spelled."""


@dataclass(frozen=True, slots=True)
class Markers:
    """What says without color which tokens are trained.

    Attributes:
        opening: before a run of trained tokens.
        closing: after it.
        stop: after a trained token that ends a generation.
        id_opening: before a token's id.
        id_closing: after it.
    """

    opening: str
    closing: str
    stop: str
    id_opening: str
    id_closing: str


MARKERS = Markers("⟦", "⟧", "■", "⟨", "⟩")
ASCII_MARKERS = Markers("[[", "]]", "{stop}", "{", "}")
"""For terminals and pipes that cannot write the others."""


def markers_for(console: Console) -> Markers:
    """The markers that this console can write."""
    return MARKERS if console.encoding.lower().startswith("utf") else ASCII_MARKERS


def has_color(console: Console) -> bool:
    """Whether colors reach the reader: a terminal that has them, or FORCE_COLOR; and no NO_COLOR."""
    return console.color_system is not None and not console.no_color


class TokenTexts:
    """The text of each token of a sequence, for any tokenizer, in time linear in its length.

    A token's text depends on its neighbors: one character may be spread over several tokens, and many decoders take the
    space before the first word away. So each token is decoded after another one, tokens that hold parts of characters
    are decoded together, and everything is aligned to the text of the whole sequence, which decides.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self._partial: set[int] = set()  # tokens whose text hangs on the tokens beside them
        self._anchor = tokenizer.encode(["a"])[0][-1:]
        self._anchor_text = tokenizer.decode(self._anchor) if self._anchor else ""

    def of(self, ids: Sequence[int]) -> list[str]:
        """One text for each of `ids`; together they are the decoded sequence.

        A character that several tokens share stands at the last of them.
        """
        if not ids:
            return []
        pieces = [self._piece(token_id) for token_id in ids]
        pieces[0] = self._tokenizer.decode(ids[:1])
        full_text = self._tokenizer.decode(ids)
        if "".join(pieces) == full_text and self._partial.isdisjoint(ids):
            return pieces
        return self._aligned_to(full_text, list(self._groups(ids, pieces)))

    def _piece(self, token_id: int) -> str:
        text = self._pieces.get(token_id)
        if text is None:
            text = self._pieces[token_id] = self._decode_after_anchor([token_id])
            name = self._tokenizer.fast.id_to_token(token_id) or ""
            is_byte = BYTE_TOKEN.fullmatch(name) is not None and text != name
            if REPLACEMENT_CHARACTER in text or not text or is_byte:
                self._partial.add(token_id)
        return text

    def _decode_after_anchor(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode([*self._anchor, *ids])
        if text.startswith(self._anchor_text):
            return text[len(self._anchor_text) :]
        return self._tokenizer.decode(ids)

    def _groups(self, ids: Sequence[int], pieces: list[str]) -> Iterator[list[str]]:
        """Whole tokens one by one; neighbors that hold parts of characters together, each at its last token."""
        position = 0
        while position < len(ids):
            end = position
            while end < len(ids) and ids[end] in self._partial:
                end += 1
            if end == position:
                yield [pieces[position]]
                position += 1
            else:
                yield self._split_characters(ids[position:end], first=position == 0)
                position = end

    def _split_characters(self, ids: Sequence[int], *, first: bool) -> list[str]:
        full_text = self._tokenizer.decode(ids) if first else self._decode_after_anchor(ids)
        texts, start, done_characters = [""] * len(ids), 0, 0
        for end in range(1, len(ids)):
            token_ids = ids[start:end]
            text = self._tokenizer.decode(token_ids) if first and start == 0 else self._decode_after_anchor(token_ids)
            if text and REPLACEMENT_CHARACTER not in text and full_text.startswith(text, done_characters):
                texts[end - 1] = text
                start, done_characters = end, done_characters + len(text)
            elif end - start > LONGEST_CHARACTER:
                break
        texts[-1] = full_text[done_characters:]
        return texts

    def _aligned_to(self, full_text: str, groups: list[list[str]]) -> list[str]:
        """The texts of the groups where they stand in `full_text`; what fits nowhere goes to the token before."""
        joined = ["".join(group) for group in groups]
        texts: list[str] = []
        lost_characters, position = 0, 0  # characters of the groups since the place was lost; the place in `whole`
        for index, group in enumerate(groups):
            if lost_characters == 0 and full_text.startswith(joined[index], position):
                texts += group
                position += len(joined[index])
                continue
            probe = "".join(islice(joined, index, index + LOOK_AHEAD))
            search = min(LONGEST_SEARCH, 2 * lost_characters + LONGEST_CHARACTER) + len(probe)
            match_start = full_text.find(probe, position, position + search) if probe and texts else -1
            if match_start >= 0:
                texts[-1] += full_text[position:match_start]
                texts += group
                lost_characters, position = 0, match_start + len(joined[index])
            else:
                texts += [""] * len(group)
                lost_characters += max(1, len(joined[index]))
        texts[-1] += full_text[position:]
        return texts


def token_texts(example: Example, tokenizer: Tokenizer) -> list[str]:
    """The text of each token; together they are the decoded sequence.

    A character that several tokens share stands at the last of them.
    """
    return TokenTexts(tokenizer).of(example.ids.tolist())


def stop_positions(example: Example) -> set[int]:
    """Where the tokens stand that end the trained replies."""
    return {turn.reply_end - 1 for turn in example.turns if turn.ends_with_stop}


def visible(text: str, *, line_ends: bool = True) -> str:
    """The text with marks for line ends and tabs (which stay), and names for characters that show nothing.

    Args:
        text: any text, from anywhere.
        line_ends: when False, line ends and tabs stay unmarked.
    """
    if text.isprintable():
        return text
    return "".join(_visible_character(character, line_ends=line_ends) for character in text)


def _visible_character(character: str, *, line_ends: bool) -> str:
    if character in "\n\t":
        return character if not line_ends else "↵\n" if character == "\n" else "⇥\t"
    if character == "\r":
        return "␍"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS:
        return f"‹U+{ord(character):04X}›"
    return character


def colored(
    example: Example,
    tokenizer: Tokenizer,
    *,
    texts: Sequence[str] | None = None,
    markers: Markers | None = None,
    id_markers: Markers | None = None,
) -> Text:
    """One Example as rich text.

    Args:
        example: the sequence.
        tokenizer: whose ids they are.
        texts: the tokens' texts where the caller has them.
        markers: marks trained runs and stop tokens for readers without color; None marks nothing.
        id_markers: puts each token's id behind it, and so shows where tokens end; None shows no ids.
    """
    texts = token_texts(example, tokenizer) if texts is None else texts
    styled = Text()
    for style, pieces in groupby(_styled(example, texts, markers, id_markers), key=lambda piece: piece[1]):
        styled.append("".join(text for text, _ in pieces), style=style)
    return styled


def _styled(
    example: Example, texts: Sequence[str], markers: Markers | None, id_markers: Markers | None
) -> Iterator[tuple[str, str]]:
    """Pieces of text with the style of each."""
    stops = stop_positions(example)
    trained = (example.weights != 0).tolist()
    for position, (text, token) in enumerate(zip(texts, example.ids.tolist(), strict=True)):
        style = (STOP if position in stops else TRAINED) if trained[position] else CONTEXT
        if markers and trained[position] and (position == 0 or not trained[position - 1]):
            yield markers.opening, TRAINED
        visible_text = visible(text, line_ends=id_markers is not None)
        body = visible_text.removesuffix("\n") if id_markers else visible_text  # the id stays on the line of its token
        yield body, style
        if id_markers:
            yield f"{id_markers.id_opening}{token}{id_markers.id_closing}{visible_text[len(body) :]}", CONTEXT
        if markers and trained[position]:
            last = position == len(trained) - 1 or not trained[position + 1]
            yield (markers.stop if position in stops else "") + (markers.closing if last else ""), style


def colored_rows(examples: Sequence[Example], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The same as plain values, for the report's page."""
    rows, texts_of = [], TokenTexts(tokenizer)
    for example in examples:
        stops, ids = stop_positions(example), example.ids.tolist()
        tokens = [
            {"text": text, "id": token, "weight": float(weight), "stop": position in stops}
            for position, (text, token, weight) in enumerate(zip(texts_of.of(ids), ids, example.weights, strict=True))
        ]
        rows.append({"address": str(example.address), "tokens": tokens})
    return rows
