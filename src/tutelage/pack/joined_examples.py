"""Two stores of Examples read as one sequence: those of the task first, then those that are replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from tutelage.pack.example_store import ExampleStore
from tutelage.types import Example


class JoinedExamples(Sequence[Example]):
    """The Examples of `first` and then those of `second`, both read as they are asked for.

    Args:
        first: its indices stay what they are.
        second: its indices follow.
    """

    def __init__(self, first: ExampleStore, second: ExampleStore) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self.first[place] if place < len(self.first) else self.second[place - len(self.first)]

    def __iter__(self) -> Iterator[Example]:
        yield from self.first
        yield from self.second

    def column(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers that counts within no store, such as `tokens`."""
        return np.concatenate([self.first.column(name), self.second.column(name)])


Examples: TypeAlias = ExampleStore | JoinedExamples
"""What a run trains on."""
