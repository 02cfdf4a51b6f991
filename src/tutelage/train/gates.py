"""Gates that every Example passes once more, after its row was kept and before a step is taken. Without torch.

What is ours to get right is asserted; what a checkpoint gets wrong ends the run with an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.config import Settings
from tutelage.errors import DataError
from tutelage.model.embeddings import output_head, read_embedding
from tutelage.model.patterns import matches
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
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    *,
    untrained_V: NDArray[np.bool_] | None,
    whole: bool,
    fix: str | None,
) -> list[str]:
    """Look at every example that is to be trained.

    Args:
        examples: what is to be trained, after rows that are too long went.
        tokenizer: knows the stop tokens and spells the others.
        untrained_V: bool [V]; rows of the model's embedding that were never trained
            (`tutelage.model.embeddings.untrained_tokens`); None where the checkpoint's rows cannot be read.
        whole: the loss runs over everything (`train_on = "all"`).
        fix: what makes the embedding learn, where it does not; None where it does.

    Returns:
        Sentences for the ledger's notes.

    Raises:
        DataError: an added token is trained whose row nobody ever trained, and this run does not; its address and the
            tokens are named.
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
    if added.counts and fix is None:
        return [
            "replies hold tokens that the model was never trained on; their rows learn from here on: "
            + added.named(tokenizer)
        ]
    if added.counts:
        raise DataError(
            "Replies hold tokens that the model was never trained on",
            where=str(added.first[added.counts.most_common(1)[0][0]]),
            found=added.named(tokenizer),
            expected="tokens whose embedding rows were trained, or an embedding that learns",
            fix=fix,
        )
    if words.counts:
        return [f"replies hold words that the model seems never to have been trained on: {words.named(tokenizer)}"]
    return []


def embedding_fix(settings: Settings, base: Path) -> str | None:
    """What to change so that the rows of new tokens learn; None where they do, or where `base` has no such rows.

    Raises:
        DataError: a safetensors file of `base` is damaged.
    """
    embedding = read_embedding(base)
    if embedding is None:
        return None
    rows = [embedding.name] if (head := output_head(base)) is None else [embedding.name, head]
    method, names = settings.model.method, [one.removesuffix(".weight") for one in rows]
    if method == "full":
        stuck = [pattern for pattern in settings.model.freeze for one in rows if matches(one, pattern)]
        return f'take "{stuck[0]}" out of model.freeze' if stuck else None
    if method == "prompt":
        return 'set model.method = "full"'
    whole = settings.lora.modules_to_save
    needed = [one.rpartition(".")[2] for one in names if not any(f".{one}".endswith(f".{each}") for each in whole)]
    listed = ", ".join(f'"{one}"' for one in [*whole, *needed])
    return f"train the embedding beside the pairs: set lora.modules_to_save = [{listed}]" if needed else None
