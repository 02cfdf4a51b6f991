"""Whether an instruction that a model wrote is taken: the rules, then whether it is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.synthesize.filters import published_filters
from tutelage.synthesize.novelty import NoveltyIndex
from tutelage.types import Address, Drop
from tutelage.words import plain_words


@dataclass(slots=True)
class Candidates:
    """The instructions so far, seeds first.

    Args:
        seeds: that the first instruction is compared with.
        bound: of ROUGE-L F; an instruction is new below it. Source: Wang et al. 2022, section 2.2.
    """

    seeds: Sequence[str]
    bound: float = 0.7
    taken: list[str] = field(default_factory=list)
    _index: NoveltyIndex = field(init=False)

    def __post_init__(self) -> None:
        self._index = NoveltyIndex(self.bound)
        for seed in self.seeds:
            self._index.add(plain_words(seed))

    def take(self, instruction: str, address: Address) -> Drop | None:
        """Take an instruction in, or say why not."""
        drop = published_filters().drop(instruction, address)
        if drop is not None:
            return drop
        words = plain_words(instruction)
        nearest = self._index.nearest(words)
        if nearest is not None:
            own = nearest.number - len(self.seeds)
            earlier = self.seeds[nearest.number] if own < 0 else self.taken[own]
            detail = f"ROUGE-L {nearest.score:.2f} with an earlier one: {instruction} / {earlier}"
            return Drop(address, "not_new", detail)
        self._index.add(words)
        self.taken.append(instruction)
        return None
