"""The text of a reply while its tokens come."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.render import Tokenizer

UNFINISHED = "\ufffd"
"""What stands for a letter some of whose bytes have not come yet."""


class TextStream:
    """Gives text as soon as it is sure: whole letters, and nothing that may turn out to begin a stop string.

    Args:
        tokenizer: decodes.
        stop_strings: texts before which the reply ends.
        marker: what may be no words begins with it: nothing is given from there on, nor the white space before it.
        held_starts: a reply that begins with one of these may be no words as a whole, and is given at its end.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: Sequence[str] = (),
        *,
        marker: str | None = None,
        held_starts: tuple[str, ...] = (),
    ) -> None:
        self._tokenizer, self._marker, self._held_starts = tokenizer, marker, held_starts
        self._stop_strings = [*stop_strings, marker] if marker else stop_strings
        self._ids: list[int] = []
        self._context_start = self._read = 0
        self._pending = ""
        self._given = 0

    def add(self, token: int) -> str:
        """The text that became sure with this token, often none."""
        self._ids.append(token)
        # Decoded behind some tokens that are known: decoders write the first token of a text in another way.
        known = self._tokenizer.decode(self._ids[self._context_start : self._read])
        text = self._tokenizer.decode(self._ids[self._context_start :])
        if len(text) <= len(known) or text.endswith(UNFINISHED):
            return ""
        self._pending += text[len(known) :]
        self._context_start, self._read = self._read, len(self._ids)
        return self._take(len(self._pending) - self._withheld())

    def end(self, text: str, whole: str | None = None) -> str:
        """What of the whole text, as it is known now, was not given yet.

        Args:
            text: what of the reply are words.
            whole: the reply that they are a stretch of, where they are not all of it.
        """
        if whole is not None and self._given:
            text = whole[: whole.find(text) + len(text)]
        rest = text[self._given :]
        self._given = len(text)
        return rest

    def _take(self, characters: int) -> str:
        text, self._pending = self._pending[:characters], self._pending[characters:]
        self._given += len(text)
        return text

    def _withheld(self) -> int:
        """How many characters at the end may begin a stop string; all from where a whole one begins."""
        if self._given == 0 and self._pending.lstrip().startswith(self._held_starts):
            return len(self._pending)
        starts = [len(self._pending) - self._pending.find(stop) for stop in self._stop_strings if stop in self._pending]
        for stop in self._stop_strings:
            longest = min(len(stop) - 1, len(self._pending))
            starts += [count for count in range(longest, 0, -1) if self._pending.endswith(stop[:count])][:1]
        held = max(starts, default=0)
        if self._marker is not None:
            held = len(self._pending) - len(self._pending[: len(self._pending) - held].rstrip())
        return held
