"""Encodes many texts that share their parts: each part between two added tokens is tokenized once.

A tokenizer cuts a text at its added tokens first and encodes the pieces between them without looking across. So the
pieces of a served prompt, of the finished turn and of all later prompts of a conversation need to be encoded once, and
the cost of a conversation grows with its text, not with the square of its turns.

Source: the order of work (added tokens on raw text, normalizer, added tokens on normalized text, pre-tokenizer, model)
is that of the tokenizers library's own documentation, "The tokenization pipeline".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from tutelage.render.word_cache import WordEncoder, cuts_before_spaces, has_border

MEMO_IDS = 1 << 18
"""Ids remembered from call to call (about 10 MB): system prompts and tool lists repeat from row to row."""
WITNESS_EVERY = 64
"""One text in this many is encoded whole as well, and must give the same ids."""
PROBED_TOKENS = 12
"""Added tokens, from either end of the list, that the check at construction puts beside all kinds of text."""
PROBED_TEXTS = (
    "", " ", "  ", "\n", "\n\n", " \n ", "\t", "a", " a", "a ", "\na", "Hello, world! It's 12345.", "  two  spaces  ",
    "é", "e\u0301", "\u0301", "日本語", "🙂", "👩\u200d👧", "▁x", " ▁", "<", "|", "\u00a0", "\u200b", "\ufeff", "ﬁ",
    "a 1 2  b\n c\t d.\r\n e's (f) 'g  ",
)  # fmt: skip

Segment = tuple[bool, str]
"""Whether it opens its text (some tokenizers mark the first piece otherwise), and the piece."""


class SegmentEncoder:
    """Ids of texts, equal to `encode_batch_fast(texts, add_special_tokens=False)`, each shared piece encoded once.

    Args:
        fast: the tokenizer; its added tokens do not change from now on.
        memo_ids: how many ids to remember from call to call.

    Attributes:
        fallback_reason: why this tokenizer's texts are encoded whole; None when they are cut at added tokens.
        remembered_ids: ids remembered now.
    """

    def __init__(self, fast: FastTokenizer, *, memo_ids: int = MEMO_IDS) -> None:
        self._fast, self._memo_limit = fast, memo_ids
        tokens: dict[int, AddedToken] = fast.get_added_tokens_decoder()
        self._raw_ids = {
            token.content: index for index, token in tokens.items() if not token.normalized and token.content
        }
        token_texts = sorted(self._raw_ids, key=len, reverse=True)  # the longest of those that start at a place wins
        self._split = re.compile("(" + "|".join(re.escape(token_text) for token_text in token_texts) + ")").split
        self._guard = _guard(token_texts)
        self._memo: dict[Segment, list[int]] = {}
        self.remembered_ids = 0
        self._words = self._word_encoder(has_raw_tokens_only=len(self._raw_ids) == len(tokens))
        self.fallback_reason = self._reason_against_segments(tokens)

    def __reduce__(self) -> tuple[type[SegmentEncoder], tuple[FastTokenizer]]:
        return SegmentEncoder, (self._fast,)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, added tokens recognized, nothing put around them; a list of its own for each text."""
        if self.fallback_reason is not None or self._fast.encode_special_tokens:
            return self._encode_whole(texts)
        ids = self._by_segments(texts)
        witnesses = [index for index, text in enumerate(texts) if _is_witness(text)]
        for index, full_ids in zip(witnesses, self._encode_whole([texts[index] for index in witnesses]), strict=True):
            assert ids[index] == full_ids, f"piecewise and whole encoding differ for {texts[index]!r}"
        return ids

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _by_segments(self, texts: Sequence[str]) -> list[list[int]]:
        cut = [self._split(text) for text in texts]  # text, token, text, token, ..., text
        segment_ids = self._ids_by_segment({segment for pieces in cut for segment in _segments(pieces)})
        result = []
        for pieces in cut:
            ids = list(segment_ids[True, pieces[0]]) if pieces[0] else []
            for index in range(1, len(pieces), 2):
                ids.append(self._raw_ids[pieces[index]])
                if text_piece := pieces[index + 1]:
                    ids += segment_ids[False, text_piece]
            result.append(ids)
        return result

    def _ids_by_segment(self, segments: set[Segment]) -> dict[Segment, list[int]]:
        """Ids of all `segments`: cached, or encoded now, after an added token where they follow one."""
        memo = self._memo
        ids_by_segment: dict[Segment, list[int]] = {}
        for segment in segments:
            ids = memo.pop(segment, None)
            if ids is not None:
                ids_by_segment[segment] = memo[segment] = (
                    ids  # put back at the end: the least recently used stands first
                )
        missing = [segment for segment in segments if segment not in ids_by_segment]
        for segment, ids in zip(missing, self._encode_segments(missing), strict=True):
            ids_by_segment[segment] = memo[segment] = ids
            self.remembered_ids += len(ids)
        while self.remembered_ids > self._memo_limit:
            self.remembered_ids -= len(memo.pop(next(iter(memo))))
        return ids_by_segment

    def _encode_segments(self, segments: Sequence[Segment]) -> list[list[int]]:
        if self._words is not None:
            return self._words.encode([text for _, text in segments])
        encoded = self._encode_whole([text if is_first else self._guard + text for is_first, text in segments])
        return [ids if is_first else ids[1:] for (is_first, _), ids in zip(segments, encoded, strict=True)]

    def _word_encoder(self, *, has_raw_tokens_only: bool) -> WordEncoder | None:
        """What encodes a segment word by word; None where words are not known to be independent."""
        is_known = has_raw_tokens_only and self._guard and not has_border(self._guard)
        return WordEncoder(self._fast, self._guard) if is_known and cuts_before_spaces(self._fast) else None

    def _reason_against_segments(self, tokens: dict[int, AddedToken]) -> str | None:
        if not self._guard:
            return "it has no added token that is matched on raw text and begins no other"
        for token in tokens.values():
            if token.lstrip or token.rstrip or token.single_word:
                return f"the added token {token.content!r} looks at its neighbours"
        probes = list(_probes(list(self._raw_ids)))
        for probe, joined_ids, full_ids in zip(
            probes, self._by_segments(probes), self._encode_whole(probes), strict=True
        ):
            if joined_ids != full_ids:
                return f"its pieces are not independent: {probe!r}"
        return None


def _segments(pieces: list[str]) -> Iterator[Segment]:
    if pieces[0]:
        yield True, pieces[0]
    for text in pieces[2::2]:
        if text:
            yield False, text


def _guard(token_texts: list[str]) -> str:
    """An added token that is matched whatever follows it: none that is longer begins with it."""
    return next(
        (
            token_text
            for token_text in token_texts
            if not any(longer != token_text and longer.startswith(token_text) for longer in token_texts)
        ),
        "",
    )


def _is_witness(text: str) -> bool:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % WITNESS_EVERY == 0


def _probes(token_texts: list[str]) -> Iterator[str]:
    """Texts with added tokens at all kinds of places, beside all kinds of neighbors."""
    yield from token_texts
    sample = list(dict.fromkeys([*token_texts[:PROBED_TOKENS], *token_texts[-PROBED_TOKENS:]]))
    for token_text, next_token in pairwise([*sample, sample[0]]):
        yield token_text[:-1] + next_token
        yield token_text + token_text[1:]
        yield token_text + next_token + token_text
        for text in PROBED_TEXTS:
            yield text + token_text
            yield token_text + text + next_token
            yield text + token_text + text + next_token + text + token_text + next_token + text
