"""Gates that every Example passes once more, after its row was kept and before a step is taken. Without torch.

What is ours to get right is asserted; what a checkpoint gets wrong ends the run with an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.audit.embedding_rows import output_head, read_embedding
from tutelage.config import Settings
from tutelage.errors import DataError
from tutelage.model.patterns import matches
from tutelage.render import Tokenizer
from tutelage.render.example_checks import assert_proven, trained_stops
from tutelage.types import Address, Example

SHOWN_TOKENS = 5


@dataclass(slots=True)
class _Untrained:
    """Tokens whose embedding row was never trained: how often each, and where first."""

    counts: Counter[int] = field(default_factory=Counter)
    first: dict[int, Address] = field(default_factory=dict)

    def count(self, index: int, address: Address) -> None:
        self.counts[index] += 1
        self.first.setdefault(index, address)

    def named(self, tokenizer: Tokenizer) -> str:
        return "; ".join(
            f"{tokenizer.decode([index])!r} (id {index}, {times} times, first in {self.first[index]})"
            for index, times in self.counts.most_common(SHOWN_TOKENS)
        )


@dataclass(slots=True)
class _Met:
    """What was met of them: tokens that someone added to a vocabulary, in replies or prompts alone, and words."""

    added: _Untrained = field(default_factory=_Untrained)
    prompts: _Untrained = field(default_factory=_Untrained)
    words: _Untrained = field(default_factory=_Untrained)

    def calibration_for(
        self, one: Example, untrained_V: NDArray[np.bool_], added_tokens: Container[int], new_ids: Container[int]
    ) -> None:
        """Count those of an example; a token that this run adds is refused wherever it stands."""
        is_untrained = untrained_V[one.ids]
        for index in one.ids[is_untrained & (one.weights != 0)].tolist():
            (self.added if index in added_tokens else self.words).count(index, one.address)
        for index in one.ids[is_untrained & (one.weights == 0)].tolist():
            if index in new_ids:
                self.added.count(index, one.address)
            elif index in added_tokens:
                self.prompts.count(index, one.address)


def pass_gates(
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    *,
    untrained_V: NDArray[np.bool_] | None,
    whole: bool,
    fix: str | None,
    new_ids: Container[int] = (),
) -> list[str]:
    """Look at every example that is to be trained.

    Args:
        examples: what is to be trained, after rows that are too long went.
        tokenizer: knows the stop tokens and spells the others.
        untrained_V: bool [V]; rows of the model's embedding that were never trained
            (`tutelage.audit.embedding_rows.untrained_tokens`); None where the checkpoint's rows cannot be read.
        whole: the loss runs over everything (`train_on = "all"`).
        fix: what makes the embedding learn, where it does not; None where it does.
        new_ids: ids of the tokens that this run adds (`model.add_tokens`).

    Returns:
        Sentences for the ledger's notes.

    Raises:
        DataError: an added token is trained, or one that this run adds stands anywhere, whose row nobody ever trained,
            and this run does not; its address and the tokens are named.
    """
    met = _Met()
    added_tokens = tokenizer.fast.get_added_tokens_decoder()
    look = untrained_V is not None and bool(untrained_V.any())
    for example in examples:
        plain = whole or example.turns[0].prompt_end == 1  # a document is trained from its second token on
        assert_proven(
            example, stop_ids=tokenizer.stop_ids, vocabulary_size=tokenizer.vocabulary_size, trains_all_tokens=plain
        )
        if not plain:
            turns = sum(turn.ends_with_stop for turn in example.turns)
            stops = trained_stops((example,), tokenizer.stop_ids)
            assert stops == turns, f"{example.address}: {stops} trained stop tokens, {turns} trained turns"
        if look:
            assert untrained_V is not None
            met.calibration_for(example, untrained_V, added_tokens, new_ids)
    return _judged(met, tokenizer, fix)


def _judged(met: _Met, tokenizer: Tokenizer, fix: str | None) -> list[str]:
    """The notes on what was met, or the error."""
    added, notes = met.added, []
    if added.counts and fix is not None:
        raise DataError(
            "The rows hold tokens that the model was never trained on",
            where=str(added.first[added.counts.most_common(1)[0][0]]),
            found=added.named(tokenizer),
            expected="tokens whose embedding rows were trained, or an embedding that learns",
            fix=fix,
        )
    if added.counts:
        notes.append(
            "rows hold tokens that the model was never trained on; their embedding learns from here on: "
            + added.named(tokenizer)
        )
    if met.prompts.counts and fix is not None:
        notes.append(
            "prompts hold tokens that the model was never trained on, and their embedding does not learn either: "
            + met.prompts.named(tokenizer)
        )
    if met.words.counts:
        named = met.words.named(tokenizer)
        notes.append(f"replies hold words that the model seems never to have been trained on: {named}")
    return notes


def embedding_fix(settings: Settings, base: Path) -> str | None:
    """What to change so that the rows of new tokens learn; None where they do, or where `base` has no such rows.

    Raises:
        DataError: a safetensors file of `base` is damaged.
    """
    embedding = read_embedding(base)
    if embedding is None:
        return None
    rows = [embedding.name] if (head := output_head(base)) is None else [embedding.name, head]
    method, names = settings.model.method, [row.removesuffix(".weight") for row in rows]
    if method == "full":
        stuck = [pattern for pattern in settings.model.freeze for row in rows if matches(row, pattern)]
        return f'take "{stuck[0]}" out of model.freeze' if stuck else None
    if method == "prompt":
        return 'set model.method = "full"'
    whole = settings.lora.modules_to_save
    needed = [name.rpartition(".")[2] for name in names if not any(f".{name}".endswith(f".{each}") for each in whole)]
    listed = ", ".join(f'"{one}"' for one in [*whole, *needed])
    return f"train the embedding beside the pairs: set lora.modules_to_save = [{listed}]" if needed else None
