"""Magpie: an aligned model writes the user's turn itself, from the bare beginning of a served prompt, then the reply.

Source: Xu et al. 2024 (2406.08464), section 2. No seed is shown; what it writes is what its own training made likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.synthesize.candidates import Candidates
from tutelage.synthesize.generator import Reply, Request
from tutelage.synthesize.output import Output
from tutelage.synthesize.recipes import recipe, sampling_of
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.synthesis import REQUESTS_A_ROUND, dropped
from tutelage.types import Address, Drop

NAME = "magpie"


class Magpie:
    """Makes rows of one turn and its reply.

    Args:
        book: of replies; its generator must be able to write a user's turn.
        output: whose ledger counts each turn.
        seed: of the draws.
    """

    def __init__(self, book: ReplyBook, output: Output, *, seed: int = 0) -> None:
        self._book, self._output, self._seed = book, output, seed
        self._candidates = Candidates([])

    def round(self, number: int) -> Iterator[Mapping[str, Any]]:
        """As the protocol has it."""
        first = number * REQUESTS_A_ROUND
        requests = [request(self._seed, place) for place in range(first, first + REQUESTS_A_ROUND)]
        turns = []
        for asked, written in zip(requests, self._book.ask(requests), strict=True):
            address = Address(asked.name, 0, "item")
            text = _whole(written, address)
            drop = text if isinstance(text, Drop) else self._candidates.take(text, address)
            if drop is not None:
                dropped(self._output.ledger, drop)
            elif isinstance(text, str):
                turns.append((asked.name, text))
        sampling = sampling_of(recipe(NAME)["sampling"]["reply"])
        replies = [Request(f"reply to {name}", ({"role": "user", "content": text},), sampling) for name, text in turns]
        yield from self._rows(turns, self._book.ask(replies))

    def _rows(self, turns: Sequence[tuple[str, str]], replies: Sequence[Reply]) -> Iterator[Mapping[str, Any]]:
        for (name, text), reply in zip(turns, replies, strict=True):
            answer = _whole(reply, Address(f"reply to {name}", 0, "item"))
            if isinstance(answer, Drop):
                dropped(self._output.ledger, answer)
                continue
            yield {
                "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}],
                "source": NAME,
                "model": self._book.generator.name,
                "id": name,
            }


def request(seed: int, number: int) -> Request:
    """The user's turn number so-and-so, from 0: no message, only the name tells it from others."""
    return Request(f"turn {seed}.{number}", (), sampling_of(recipe(NAME)["sampling"]["turn"]))


def _whole(reply: Reply, address: Address) -> str | Drop:
    """What was written, white space around it aside, where it is whole and not empty."""
    if reply.text is None:
        return Drop(address, "no_answer", reply.trouble)
    if not reply.is_whole:
        return Drop(address, "no_end", f"cut at its limit: {reply.text[-120:]}")
    return reply.text.strip() or Drop(address, "empty_part", "nothing was written")
