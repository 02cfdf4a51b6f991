"""The text of a reply as its tokens come, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.generate.requests import EndedBy
from tutelage.render import Tokenizer

MARGIN = 16
"""Letters at the beginning of a decoded end that may differ from those in the whole text: a space that is left out, or
what stands for a letter some of whose bytes are missing."""


@dataclass(slots=True)
class ReplyText:
    """Takes the tokens of one reply until it ends.

    Attributes:
        tokenizer: its stop tokens end the reply.
        stop_strings: so does the first of these in the text.
        max_new_tokens: so does this many tokens.
        ids: the tokens so far, without a stop token.
        ended_by: why it ended; None while it goes on.
    """

    tokenizer: Tokenizer
    stop_strings: Sequence[str]
    max_new_tokens: int
    ids: list[int] = field(default_factory=list)
    ended_by: EndedBy | None = None

    def add(self, token: int) -> None:
        """Take the next token."""
        if token in self.tokenizer.stop_ids:
            self.ended_by = "stop_token"
            return
        self.ids.append(token)
        if self.stop_strings and self._has_stop_string():
            self.ended_by = "stop_string"
        elif len(self.ids) >= self.max_new_tokens:
            self.ended_by = "length"

    @property
    def text(self) -> str:
        """What the tokens say, up to a stop string."""
        text = self.tokenizer.decode(self.ids)
        return text[: self._stop_place(text)] if self.ended_by == "stop_string" else text

    def _has_stop_string(self) -> bool:
        """Whether the newest token completes one; all of a long text is decoded only where its end has one."""
        if self._stop_place(self._end()) is None:
            return False
        return self._stop_place(self.tokenizer.decode(self.ids)) is not None

    def _end(self) -> str:
        """The end of the text, where a stop string must lie that ends in the newest token."""
        newest = self.tokenizer.decode(self.ids[-1:])
        length = max(map(len, self.stop_strings)) + len(newest) + MARGIN
        tokens = length
        while len(text := self.tokenizer.decode(self.ids[-tokens:])) < length and tokens < len(self.ids):
            tokens *= 2  # many tokens may say little: bytes of a letter, or ids beyond the tokenizer's own
        return text

    def _stop_place(self, text: str) -> int | None:
        """Where the first stop string begins."""
        places = [place for stop_string in self.stop_strings if (place := text.find(stop_string)) >= 0]
        return min(places, default=None)
