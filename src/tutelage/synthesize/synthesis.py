"""What all generators have in common: rounds of requests until there are rows enough, and the report of what came."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tutelage.ledger import Ledger
from tutelage.synthesize.generator import Reply, Request
from tutelage.synthesize.output import Output
from tutelage.synthesize.reply_book import EndedError, ReplyBook
from tutelage.synthesize.root_verbs import RootVerb, commonest, root_verb
from tutelage.types import Address, Drop

IDLE_ROUNDS = 5
"""Rounds without a row, after which a further one would bring none, either."""
REQUESTS_A_ROUND = 8
"""Requests that are made before the first of them is answered. No setting: another number is another data set."""
MOST_OPENING_WORDS = 20
_POLITE = re.compile(
    r"^\s*(?:please|kindly|can you|could you|would you|will you|i want you to|you are to|now)[\s,]+", re.I
)


class Method(Protocol):
    """A way of making rows."""

    def round(self, number: int) -> Iterator[Mapping[str, Any]]:
        """The rows of one round, from 0.

        Raises:
            EndedError, EndpointError, SaveError: as `ReplyBook.ask`.
        """


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a synthesis: its report, and why it ended before there were rows enough; None where there are."""

    report: dict[str, Any]
    ended: str | None


def synthesize_rows(
    method: Method,
    book: ReplyBook,
    output: Output,
    *,
    rows: int,
    done: Callable[[int], None] = lambda _: None,
    page: Callable[[Mapping[str, Any]], str] | None = None,
) -> Made:
    """Make rows round by round. What a round brings beyond `rows` is kept, too: it was paid for.

    Args:
        method: makes the rows of a round.
        book: has the replies.
        output: takes the rows.
        rows: how many are wanted.
        done: told of rows as they come.
        page: makes a page of the report; None leaves it out.

    Raises:
        EndpointError, SaveError: as `ReplyBook.ask`; all that was made before is in the folder.
    """
    ended, idle, number = None, 0, 0
    opening_words: Counter[str] = Counter()
    verbs: list[RootVerb] = []
    try:
        while output.rows < rows and ended is None:
            before = output.rows
            for row in method.round(number):
                output.add_row(row)
                opening_words[opening_word(_instruction(row))] += 1
                if (verb := root_verb(_instruction(row))) is not None:
                    verbs.append(verb)
            number += 1
            output.flush()
            done(min(output.rows, rows) - min(before, rows))
            idle = 0 if output.rows > before else idle + 1
            if idle == IDLE_ROUNDS:
                ended = f"{IDLE_ROUNDS} rounds in a row brought no row"
    except EndedError as error:
        ended = str(error)
    finally:
        report = _report(output, book, opening_words, verbs)
        output.finish(report, None if page is None else page(report))
    return Made(report, ended)


def opening_word(instruction: str) -> str:
    """The first word of an instruction behind words of courtesy, in small letters: of most, the verb.

    No parser is asked, so of a question it is its question word.
    """
    match = re.match(r"\W*([^\W\d_][\w'’-]*)", _POLITE.sub("", instruction, count=1))
    return match[1].casefold() if match else ""


def _instruction(row: Mapping[str, Any]) -> str:
    instruction: str = row["instruction"] if "instruction" in row else row["messages"][0]["content"]
    return instruction


def dropped(ledger: Ledger, drop: Drop) -> None:
    """Enter and drop at once."""
    ledger.enter()
    ledger.drop(drop)


def answered(ledger: Ledger, requests: Sequence[Request], replies: Sequence[Reply]) -> Iterator[tuple[Request, str]]:
    """Requests with the text of their replies; those without one are dropped."""
    for request, reply in zip(requests, replies, strict=True):
        if reply.text is None:
            dropped(ledger, Drop(Address(request.name, 0, "item"), "no_answer", reply.trouble))
        else:
            yield request, reply.text


def _report(output: Output, book: ReplyBook, opening_words: Counter[str], verbs: Sequence[RootVerb]) -> dict[str, Any]:
    return {
        **output.asked,
        "rows": output.rows,
        "requests": book.requests,
        "tokens": book.tokens,
        "rows_per_1000_tokens": round(1000 * output.rows / book.tokens, 3) if book.tokens else None,
        "opening_words": dict(opening_words.most_common(MOST_OPENING_WORDS)),
        "distinct_opening_words": len(opening_words),
        "root_verbs": [asdict(share) for share in commonest(verbs)],
        "rows_with_verb_and_object": sum(bool(verb.object) for verb in verbs),
        "ledger": output.ledger.as_dict(),
    }
