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
from tutelage.render.loss_mask import assert_proven, trained_stops
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
class _UntrainedTokens:
    """Untrained tokens of the rows: added to the vocabulary, in replies or in prompts alone, and of plain text."""

    added: _Untrained = field(default_factory=_Untrained)
    prompt_tokens: _Untrained = field(default_factory=_Untrained)
    text_tokens: _Untrained = field(default_factory=_Untrained)

    def count_example(
        self, example: Example, untrained_V: NDArray[np.bool_], added_tokens: Container[int], new_ids: Container[int]
    ) -> None:
        """Count those of an example; a token that this run adds is refused wherever it stands."""
        is_untrained = untrained_V[example.ids]
        for index in example.ids[is_untrained & (example.weights != 0)].tolist():
            (self.added if index in added_tokens else self.text_tokens).count(index, example.address)
        for index in example.ids[is_untrained & (example.weights == 0)].tolist():
            if index in new_ids:
                self.added.count(index, example.address)
            elif index in added_tokens:
                self.prompt_tokens.count(index, example.address)


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
    untrained = _UntrainedTokens()
    added_tokens = tokenizer.fast.get_added_tokens_decoder()
    has_untrained = untrained_V is not None and bool(untrained_V.any())
    for example in examples:
        trains_whole_text = whole or example.turns[0].prompt_end == 1  # a document is trained from its second token on
        assert_proven(
            example,
            stop_ids=tokenizer.stop_ids,
            vocabulary_size=tokenizer.vocabulary_size,
            trains_all_tokens=trains_whole_text,
        )
        if not trains_whole_text:
            turns = sum(turn.ends_with_stop for turn in example.turns)
            stops = trained_stops((example,), tokenizer.stop_ids)
            assert stops == turns, f"{example.address}: {stops} trained stop tokens, {turns} trained turns"
        if has_untrained:
            assert untrained_V is not None
            untrained.count_example(example, untrained_V, added_tokens, new_ids)
    return _notes_or_error(untrained, tokenizer, fix)


def _notes_or_error(untrained: _UntrainedTokens, tokenizer: Tokenizer, fix: str | None) -> list[str]:
    """The notes on the untrained tokens of the rows, or the error."""
    added, notes = untrained.added, []
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
    if untrained.prompt_tokens.counts and fix is not None:
        notes.append(
            "prompts hold tokens that the model was never trained on, and their embedding does not learn either: "
            + untrained.prompt_tokens.named(tokenizer)
        )
    if untrained.text_tokens.counts:
        named = untrained.text_tokens.named(tokenizer)
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
        frozen_by = [pattern for pattern in settings.model.freeze for row in rows if matches(row, pattern)]
        return f'take "{frozen_by[0]}" out of model.freeze' if frozen_by else None
    if method == "prompt":
        return 'set model.method = "full"'
    modules_to_save = settings.lora.modules_to_save
    missing_modules = [
        name.rpartition(".")[2]
        for name in names
        if not any(f".{name}".endswith(f".{each}") for each in modules_to_save)
    ]
    listed = ", ".join(f'"{module}"' for module in [*modules_to_save, *missing_modules])
    return f"train the embedding beside the pairs: set lora.modules_to_save = [{listed}]" if missing_modules else None
