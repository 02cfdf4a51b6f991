"""Ids on either side of the border between a served prompt and its reply.

The ids of the prompt are what a server feeds; they stay as they are. Where a tokenizer would cut the prompt's end
otherwise with the reply behind it (white space rules of the GPT-2 kind, merges of letters), the reply is tokenized as a
model emits it: behind a border that is already there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tutelage.render.tokenizer import Tokenizer

CONTEXT_TOKENS = 6
"""Tokens of context that a reply is decoded behind: decoders look back at most over one character's bytes."""


def reply_ids(tokenizer: Tokenizer, prompt_ids: list[int], whole_ids: list[int], reply: str) -> list[int] | None:
    """Ids of `reply` behind `prompt_ids`; None when no tokenization gives back the text.

    Args:
        tokenizer: encodes and decodes.
        prompt_ids: of the served prompt.
        whole_ids: of prompt and reply encoded as one text.
        reply: the text that the ids must decode to behind the prompt.
    """
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        return whole_ids[len(prompt_ids) :]
    for ids in _behind_a_border(tokenizer, reply):
        if reply in (decoded_behind(tokenizer, [(prompt_ids, ids)])[0], spelled_behind(tokenizer, prompt_ids, ids)):
            return ids
    return None


def decoded_behind(tokenizer: Tokenizer, pairs: Sequence[tuple[list[int], list[int]]]) -> list[str]:
    """The text that each second list adds behind the first.

    Decoders drop a leading space at the very start of a text and join bytes to characters, so a reply is decoded
    together with the last few tokens before it.
    """
    contexts = [before[-CONTEXT_TOKENS:] for before, _ in pairs]
    alone = dict(zip(map(tuple, contexts), tokenizer.decode_all(contexts), strict=True))
    both = tokenizer.decode_all([context + ids for context, (_, ids) in zip(contexts, pairs, strict=True)])
    texts = []
    for context, together, (before, ids) in zip(contexts, both, pairs, strict=True):
        start = alone[tuple(context)]
        if together.startswith(start):
            texts.append(together[len(start) :])
        else:  # the context began inside a character
            texts.append(tokenizer.decode(before + ids)[len(tokenizer.decode(before)) :])
    return texts


def spelled_behind(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """The same, part by part between added tokens (`Tokenizer.spell`)."""
    context = before[-CONTEXT_TOKENS:]
    return tokenizer.spell(context + ids)[len(tokenizer.spell(context)) :]


def _behind_a_border(tokenizer: Tokenizer, reply: str) -> Iterator[list[int]]:
    yield tokenizer.encode([reply])[0]
    for border in ("\n", ".", "a"):  # some tokenizers put a space before the first letter of any text
        alone, behind = tokenizer.encode([border, border + reply])
        if behind[: len(alone)] == alone:
            yield behind[len(alone) :]
