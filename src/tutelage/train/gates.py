"""Gates that every Example passes once more, after its row was kept and before a step is taken. Without torch.

What is ours to get right is asserted; what a checkpoint gets wrong ends the run with an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.render.gates import assert_proven, trained_stops
from tutelage.types import Address, Example

SHOWN_TOKENS = 5


@dataclass(slots=True)
class _Untrained:
    """Trained tokens whose embedding row was never trained: how often each, and where first."""

    counts: Counter[int] = field(default_factory=Counter)
    first: dict[int, Address] = field(default_factory=dict)

    def named(self, tokenizer: Tokenizer) -> str:
        return "; ".join(
            f"{tokenizer.decode([index])!r} (id {index}, {times} times, first in {self.first[index]})"
            for index, times in self.counts.most_common(SHOWN_TOKENS)
        )


def pass_gates(
    examples: Iterable[Example], tokenizer: Tokenizer, *, untrained_V: NDArray[np.bool_] | None, whole: bool
) -> list[str]:
    """Look at every example that is to be trained.

    Args:
        examples: what is to be trained, after rows that are too long went.
        tokenizer: knows the stop tokens and spells the others.
        untrained_V: bool [V]; rows of the model's embedding that were never trained
            (`tutelage.model.embeddings.untrained_tokens`); None where the checkpoint's rows cannot be read.
        whole: the loss runs over everything (`train_on = "all"`).

    Returns:
        Sentences for the ledger's notes.

    Raises:
        DataError: an added token is trained whose row nobody ever trained; its address and the tokens are named.
    """
    added, words = _Untrained(), _Untrained()
    added_tokens = tokenizer.fast.get_added_tokens_decoder()
    look = untrained_V is not None and bool(untrained_V.any())
    for one in examples:
        plain = whole or one.turns[0].prompt_end == 1  # a document is trained from its second token on
        assert_proven(one, stop_ids=tokenizer.stop_ids, vocabulary_size=tokenizer.vocabulary_size, whole=plain)
        if not plain:
            turns = sum(turn.ends_with_stop for turn in one.turns)
            stops = trained_stops((one,), tokenizer.stop_ids)
            assert stops == turns, f"{one.address}: {stops} trained stop tokens, {turns} trained turns"
        if look:
            assert untrained_V is not None
            trained = one.ids[one.weights != 0]
            for index in trained[untrained_V[trained]].tolist():
                kind = added if index in added_tokens else words
                kind.counts[index] += 1
                kind.first.setdefault(index, one.address)
    if added.counts:
        raise DataError(
            "Replies hold tokens that the model was never trained on",
            where=str(added.first[added.counts.most_common(1)[0][0]]),
            found=added.named(tokenizer),
            expected="tokens whose embedding rows were trained, or at least initialised",
            fix="leave those rows out; if the template writes them, choose another (tutelage check --model ...), or "
            "give the rows values first (the mean of all rows) and train the embedding",
        )
    if words.counts:
        return [f"replies hold words that the model seems never to have been trained on: {words.named(tokenizer)}"]
    return []
