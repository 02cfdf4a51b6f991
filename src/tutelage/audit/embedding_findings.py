"""Does the template belong to the checkpoint? What its embedding says about the tokens that the template writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.audit.embedding_rows import Embedding, EmbeddingState
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Finding

EXCERPT_TOKENS = 8


def embedding_findings(
    embedding: Embedding, state: EmbeddingState, tokenizer: Tokenizer, written: Sequence[str]
) -> Iterator[Finding]:
    """What the rows of the control tokens in `written` say, and how many rows were never trained.

    Args:
        embedding: the checkpoint's input embedding.
        state: what was found in it.
        tokenizer: the run's tokenizer.
        written: control tokens that the run's template writes, as text.
    """
    ids = {token: index for token in written if (index := tokenizer.fast.token_to_id(token)) is not None}
    ids |= {tokenizer.decode([stop_token_id]): stop_token_id for stop_token_id in sorted(tokenizer.stop_ids)}
    rows_by_token = {token: index for token, index in ids.items() if index < embedding.rows}
    untrained = [token for token, index in rows_by_token.items() if state.untrained_V[index]]
    if untrained:
        yield Finding(
            "control_tokens_untrained",
            "error",
            "The template does not belong to this checkpoint: the model was never trained on these tokens, so it "
            "cannot tell them apart. A run that freezes the embedding, as LoRA does, cannot teach it.",
            f"{_described(untrained, rows_by_token, state)}; {'; '.join(state.why)}",
            "train another template (the checkpoint's own, or --template plain), or give these rows values first "
            "(the mean of all rows) and train the embedding",
        )
    elif rows_by_token:
        yield Finding(
            "control_tokens_trained",
            "info",
            "The model was trained on the control tokens of this template, as far as its embedding shows.",
            _described(list(rows_by_token), rows_by_token, state),
        )
    if state.untrained_V.any():
        rows = np.flatnonzero(state.untrained_V)
        names = [tokenizer.fast.id_to_token(int(row)) or f"row {row}" for row in rows[:EXCERPT_TOKENS]]
        yield Finding(
            "untrained_rows",
            "info",
            f"{len(rows)} rows of the embedding were never trained; replies must not hold their tokens.",
            f"{', '.join(names)}{', ...' if len(rows) > EXCERPT_TOKENS else ''}; {'; '.join(state.why)}",
        )
    if embedding.rows != tokenizer.vocabulary_size:
        yield Finding(
            "rows_differ",
            "warning",
            "config.json and the embedding disagree about the number of rows; ids beyond the smaller have none.",
            f"config.json says {tokenizer.vocabulary_size}, {embedding.name} has {embedding.rows}",
            "correct vocab_size in config.json",
        )


def _described(tokens: Sequence[str], ids: dict[str, int], state: EmbeddingState) -> str:
    """Each token with where its row stands: the share of rows that are shorter, and the distance from unused rows."""
    parts = []
    for token in tokens[:EXCERPT_TOKENS]:
        index = ids[token]
        shorter = float((state.norms_V < state.norms_V[index]).mean())
        distance = state.distance_V[index]
        distance_text = (
            "" if np.isnan(distance) else f", {distance:.3f} of an ordinary token's distance from tokens nobody trained"
        )
        parts.append(f"{token} (norm {state.norms_V[index]:.3g}, {shorter:.0%} of rows are shorter{distance_text})")
    return "; ".join(parts)
