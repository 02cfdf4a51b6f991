"""The gate before training: no token is trained whose embedding row nobody ever trained. Imports without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.types import Address, Example

SHOWN_TOKENS = 5


def refuse_untrained_tokens(examples: Iterable[Example], untrained_V: NDArray[np.bool_], tokenizer: Tokenizer) -> None:
    """Look at every trained token of every example.

    Args:
        examples: what is to be trained.
        untrained_V: bool [V]; rows of the model's embedding that were never trained
            (`tutelage.model.embeddings.untrained_tokens`).
        tokenizer: spells the tokens.

    Raises:
        DataError: a trained token has such a row; its address and the tokens are named.
    """
    if not untrained_V.any():
        return
    counts: Counter[int] = Counter()
    first: dict[int, Address] = {}
    for example in examples:
        trained = example.ids[example.weights != 0]
        for index in trained[untrained_V[trained]].tolist():
            counts[index] += 1
            first.setdefault(index, example.address)
    if not counts:
        return
    named = [
        f"{tokenizer.decode([index])!r} (id {index}, {times} times, first in {first[index]})"
        for index, times in counts.most_common(SHOWN_TOKENS)
    ]
    raise DataError(
        "Replies hold tokens that the model was never trained on",
        where=str(first[counts.most_common(1)[0][0]]),
        found="; ".join(named),
        expected="tokens whose embedding rows were trained, or at least initialised",
        fix="leave those rows out; if the template writes them, choose another (tutelage check --model ...), or give "
        "the rows values first (the mean of all rows) and train the embedding",
    )
