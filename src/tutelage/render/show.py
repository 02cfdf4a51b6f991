"""Shows an Example to people: trained tokens in colour, the served prompt dim, the stop token marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Example

TRAINED, CONTEXT, STOP = "bold green", "dim", "bold black on green"


def token_texts(example: Example, tokenizer: Tokenizer) -> list[str]:
    """The text of each token; together they are the decoded sequence.

    Bytes of one character that several tokens share all appear at the last of them.
    """
    texts = []
    ids = example.ids.tolist()
    start = 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:end])
        if text.endswith("\ufffd") and end < len(ids) and end - start < 8:  # half of a character: wait for the rest
            texts.append("")
            continue
        texts.append(text)
        start = end
    return texts


def coloured(example: Example, tokenizer: Tokenizer) -> Text:
    """One Example as rich text."""
    stops = {turn.reply_end - 1 for turn in example.turns if turn.ends_with_stop}
    shown = Text()
    for position, text in enumerate(token_texts(example, tokenizer)):
        trained = example.weights[position] != 0
        style = (STOP if position in stops else TRAINED) if trained else CONTEXT
        shown.append(text, style=style)
    return shown


def coloured_rows(examples: Sequence[Example], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The same as plain values, for the report's page."""
    rows = []
    for example in examples:
        stops = {turn.reply_end - 1 for turn in example.turns if turn.ends_with_stop}
        tokens = [
            {"text": text, "id": int(token), "weight": float(weight), "stop": position in stops}
            for position, (text, token, weight) in enumerate(
                zip(token_texts(example, tokenizer), example.ids, example.weights, strict=True)
            )
        ]
        rows.append({"address": str(example.address), "tokens": tokens})
    return rows
