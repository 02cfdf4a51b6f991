"""Which tokens of a packed row attend to which: documents, what they share, and how far back a layer looks.

A layer that looks back over a window, or to the start of a chunk, says so in the mask that transformers makes for it.
Here that mask is not a table of tokens by tokens but a `Reach`, which the model hands on to its attention unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from tutelage.model.attention.cpu_bf16 import Segment


class UnknownAttentionError(ValueError):
    """A model asks for attention that is not computed here; its own computes it, one document a row."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back a token sees inside its document.

    Attributes:
        window: the last so many tokens, itself included; None: all of them.
        chunk: those of its own chunk, where the document is cut every so many tokens; None: it is not cut.
    """

    window: int | None = None
    chunk: int | None = None

    def inside(self, longest: int) -> Reach:
        """The same without what no document of up to `longest` tokens meets."""
        return Reach(
            None if self.window is None or self.window >= longest else self.window,
            None if self.chunk is None or self.chunk >= longest else self.chunk,
        )


FULL = Reach()


def reach_mask(
    *,
    config: Any,
    local_size: int | None = None,
    use_vmap: bool = False,
    attention_mask: Any = None,
    **other_arguments: Any,
) -> Reach | None:
    """What transformers' attention mask interface asks for; None where a layer sees all of a document.

    Args:
        config: of the model.
        local_size: tokens of the layer's window or chunk.
        use_vmap: the model adds a condition of its own to the mask.
        attention_mask: of padding.
        other_arguments: the interface's other arguments; those of masks in both directions have one more.

    Raises:
        UnknownAttentionError: the mask is neither causal, nor a causal window, nor causal in chunks.
    """
    if use_vmap or attention_mask is not None or "allow_is_bidirectional_skip" in other_arguments:
        raise UnknownAttentionError("the model's mask is not that of causal attention, a window or chunks")
    if local_size is None:
        return None
    windows, chunks = (
        getattr(config, setting, None) == local_size for setting in ("sliding_window", "attention_chunk_size")
    )
    if windows == chunks:
        raise UnknownAttentionError(f"a mask over {local_size} tokens is a window or chunks, and nothing tells which")
    return Reach(window=local_size) if windows else Reach(chunk=local_size)


@dataclass(frozen=True, slots=True)
class Layout:
    """The stretches of a `PackedSequence`: the tokens of each, and the stretch that each continues, or -1."""

    document_tokens: tuple[int, ...]
    parents: tuple[int, ...] = ()

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where each stretch begins and ends in the row."""
        return list(pairwise(accumulate(self.document_tokens, initial=0)))

    def chains(self) -> list[tuple[int, ...]]:
        """For each stretch those it attends to: its parents, the outermost first, and itself."""
        chains: list[tuple[int, ...]] = []
        for number, parent in enumerate(self.parents or (-1,) * len(self.document_tokens)):
            chains.append((*(chains[parent] if parent >= 0 else ()), number))
        return chains

    @property
    def longest(self) -> int:
        """Tokens of the longest document, all that it shares with others included."""
        return max(self._ends())

    def _ends(self) -> list[int]:
        """How many tokens of its document there are up to the end of each stretch."""
        if not self.parents:
            return list(self.document_tokens)
        ends: list[int] = []
        for tokens, parent in zip(self.document_tokens, self.parents, strict=True):
            ends.append(tokens + (ends[parent] if parent >= 0 else 0))
        return ends

    def in_chunks(self, chunk: int) -> Layout:
        """The stretches cut wherever their document is a multiple of `chunk` tokens long: nothing is seen beyond that.

        A part that begins inside of a chunk continues the part before it; one that begins a chunk continues nothing.
        """
        tokens: list[int] = []
        parents: list[int] = []
        last_parts: list[int] = []
        for length, parent, end in zip(
            self.document_tokens, self.parents or (-1,) * len(self.document_tokens), self._ends(), strict=True
        ):
            start, previous = end - length, last_parts[parent] if parent >= 0 else -1
            while start < end:
                part_end = min(end, (start // chunk + 1) * chunk)
                tokens.append(part_end - start)
                parents.append(previous if start % chunk else -1)
                previous, start = len(tokens) - 1, part_end
            last_parts.append(previous)
        return Layout(tuple(tokens), tuple(parents) if any(parent >= 0 for parent in parents) else ())

    def segments(self, window: int | None = None) -> list[Segment]:
        """The same as places of the row; of what lies above a stretch only what its first token sees."""
        spans = [slice(*bounds) for bounds in self.places]
        full_segments = [
            Segment(spans[chain[-1]], tuple(spans[parent] for parent in chain[:-1])) for chain in self.chains()
        ]
        if window is None:
            return full_segments
        return [replace(segment, above=_last(segment.above, window - 1)) for segment in full_segments]


def _last(spans: Sequence[slice], tokens: int) -> tuple[slice, ...]:
    """The last `tokens` of `places`, which follow each other in a document."""
    clipped: list[slice] = []
    for span in reversed(spans):
        if tokens <= 0:
            break
        clipped.insert(0, slice(max(span.start, span.stop - tokens), span.stop))
        tokens -= span.stop - span.start
    return tuple(clipped)
