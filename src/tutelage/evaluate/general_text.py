"""General text: what anybody may write, whose loss before and after training shows what a model forgot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.types import Address, TokenIds


@dataclass(frozen=True, slots=True)
class GeneralText:
    """A text for a model to predict.

    Attributes:
        address: where it stands.
        ids: at least two; the first is given, as nothing predicts it.
        bytes: in UTF-8, of what the others spell.
    """

    address: Address
    ids: TokenIds
    bytes: int


def general_text(tokenizer: Tokenizer, text: str, address: Address, *, most_tokens: int) -> GeneralText:
    """A text as the tokenizer writes a document, cut at `most_tokens`; an end that it puts behind one is left out.

    Raises:
        DataError: nothing of the text would be predicted.
    """
    ids = tokenizer.encode_document(text)
    if ids and ids[-1] in tokenizer.stop_ids:
        ids.pop()
    ids = ids[:most_tokens]
    spelled, given = (len(tokenizer.decode(part).encode("utf-8", "replace")) for part in (ids, ids[:1]))
    if len(ids) < 2 or spelled <= given:
        raise DataError(
            "A general text is too short to be predicted",
            where=str(address),
            found=f"{len(ids)} tokens",
            expected="at least two",
            fix="leave it out of evaluate.general_text",
        )
    return GeneralText(address, np.asarray(ids, dtype=np.int32), spelled - given)
