"""Ids on either side of the border between a served prompt and its reply.

The ids of the prompt are what a server feeds; they stay as they are. Where a tokenizer would cut the prompt's end
otherwise with the reply behind it (white space rules of the GPT-2 kind, merges of characters), the reply is tokenized
as a model emits it: after a boundary that is already there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tutelage.render.tokenizer import Tokenizer

CONTEXT_TOKENS = 6
"""Tokens of context that a reply is decoded after: decoders look back at most over one character's bytes."""


def reply_ids(tokenizer: Tokenizer, prompt_ids: list[int], full_ids: list[int], reply: str) -> list[int] | None:
    """Ids of `reply` after `prompt_ids`; None when no tokenization gives back the text.

    Args:
        tokenizer: encodes and decodes.
        prompt_ids: of the served prompt.
        full_ids: of prompt and reply encoded as one text.
        reply: the text that the ids must decode to after the prompt.
    """
    if full_ids[: len(prompt_ids)] == prompt_ids:
        return full_ids[len(prompt_ids) :]
    for ids in _after_border(tokenizer, reply):
        if reply in (decoded_after(tokenizer, [(prompt_ids, ids)])[0], spelled_after(tokenizer, prompt_ids, ids)):
            return ids
    return None


def decoded_after(tokenizer: Tokenizer, pairs: Sequence[tuple[list[int], list[int]]]) -> list[str]:
    """The text that each second list adds to the first.

    Decoders drop a leading space at the very start of a text and join bytes to characters, so a reply is decoded
    together with the last few tokens before it.
    """
    contexts = [prefix_ids[-CONTEXT_TOKENS:] for prefix_ids, _ in pairs]
    distinct_contexts = list(dict.fromkeys(map(tuple, contexts)))  # prompts mostly end alike
    context_texts = dict(zip(distinct_contexts, tokenizer.decode_all(distinct_contexts), strict=True))
    full_texts = tokenizer.decode_all([context + ids for context, (_, ids) in zip(contexts, pairs, strict=True)])
    texts = []
    for context, full_text, (prefix_ids, ids) in zip(contexts, full_texts, pairs, strict=True):
        start = context_texts[tuple(context)]
        if full_text.startswith(start):
            texts.append(full_text[len(start) :])
        else:  # the context began inside a character
            texts.append(tokenizer.decode(prefix_ids + ids)[len(tokenizer.decode(prefix_ids)) :])
    return texts


def spelled_after(tokenizer: Tokenizer, prefix_ids: list[int], ids: list[int]) -> str:
    """The same, part by part between added tokens (`Tokenizer.spell`)."""
    context = prefix_ids[-CONTEXT_TOKENS:]
    return tokenizer.spell(context + ids)[len(tokenizer.spell(context)) :]


def _after_border(tokenizer: Tokenizer, reply: str) -> Iterator[list[int]]:
    yield tokenizer.encode([reply])[0]
    for border in ("\n", ".", "a"):  # some tokenizers put a space before the first character of any text
        border_ids, joined_ids = tokenizer.encode([border, border + reply])
        if joined_ids[: len(border_ids)] == border_ids:
            yield joined_ids[len(border_ids) :]
