"""New tokens for a model: the tokenizer learns them whole, and their embedding rows get values to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Tokenizer

from tutelage.errors import ConfigError

TokenStart = Literal["mean", "pieces"]


def add_to_tokenizer(base: Path, folder: Path, tokens: Sequence[str]) -> dict[str, list[int]]:
    """Write the tokenizer of `base` with `tokens` into `folder`; return the ids that it had for each before.

    Raises:
        ConfigError: one of them is a token already.
    """
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    if existing := [token for token in tokens if tokenizer.token_to_id(token) is not None]:
        raise ConfigError(
            "A token that is to be added is one already",
            where="model.add_tokens",
            found=", ".join(existing),
            expected="texts that the tokenizer has no token of their own for",
            fix="take it out",
        )
    piece_ids = {token: list(tokenizer.encode(token, add_special_tokens=False).ids) for token in tokens}
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    return piece_ids


def add_rows(
    base: Path, folder: Path, tokens: Sequence[str], *, start: TokenStart, trust_remote_code: bool = False
) -> None:
    """Write the model and tokenizer of `base` with rows for `tokens`, in its embedding and its head, into `folder`.

    Args:
        base: the model's folder.
        folder: exists.
        tokens: in the order of their ids.
        start: a row is the mean of all rows (Hewitt 2021, Initializing New Word Embeddings), or of those of the pieces
            that the token was encoded as before.
        trust_remote_code: the model's own Python code may run.

    Raises:
        ConfigError: one of them is a token already.
        DataError: the model cannot be loaded.
    """
    import torch

    from tutelage.model.load import load, no_progress_bars

    piece_ids = add_to_tokenizer(base, folder, tokens)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model, _ = load(base, trust_remote_code=trust_remote_code, onto="cpu")
    rows = model.get_input_embeddings().weight.shape[0]
    if (needed := tokenizer.get_vocab_size()) > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    head = model.get_output_embeddings()
    weights = [model.get_input_embeddings().weight, *([] if head is None else [head.weight])]
    with torch.no_grad():
        for weight_VH in {id(weight): weight for weight in weights}.values():
            known_VH = weight_VH[:rows].float().clone()
            for token, ids in piece_ids.items():
                chosen_KH = known_VH[ids] if start == "pieces" else known_VH
                weight_VH[tokenizer.token_to_id(token)] = chosen_KH.mean(dim=0).to(weight_VH.dtype)
    with no_progress_bars():
        model.save_pretrained(folder)
