"""The items of the general set that were lost, for the page: counts by capability, and some with both replies."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.runs.transitions import ItemTransitions, LostItem

LONGEST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class CutText:
    """A text as shown, under its heading, and how many of its characters are not."""

    heading: str
    text: str
    cut_characters: int


@dataclass(frozen=True, slots=True)
class LostView:
    """One lost item."""

    id: str
    capability: str
    prompt: CutText
    replies: tuple[CutText, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """How many items of a capability were lost and gained."""

    capability: str
    lost: int
    gained: int


@dataclass(frozen=True, slots=True)
class LostItems:
    """All that the page says of items that moved."""

    by_capability: tuple[Moved, ...]
    items: tuple[LostView, ...]

    @property
    def lost(self) -> int:
        """Over all capabilities."""
        return sum(moved.lost for moved in self.by_capability)

    @property
    def gained(self) -> int:
        """Over all capabilities."""
        return sum(moved.gained for moved in self.by_capability)

    @property
    def left_out(self) -> int:
        """Lost items whose replies are not here."""
        return max(0, self.lost - len(self.items))


def view_lost(transitions: ItemTransitions | None) -> LostItems | None:
    """What is shown; None where the run does not say which items moved."""
    if transitions is None:
        return None
    lost, gained = transitions.lost, transitions.gained
    moved = (
        Moved(name, len(lost.get(name, ())), len(gained.get(name, ()))) for name in dict.fromkeys((*lost, *gained))
    )
    return LostItems(tuple(moved), tuple(_view(item) for item in transitions.lost_items))


def _view(item: LostItem) -> LostView:
    replies = {"A right reply": item.reference, "Before": item.before, "After": item.after}
    shown = tuple(_cut(heading, text) for heading, text in replies.items() if text is not None)
    return LostView(item.id, item.capability, _cut("Prompt", item.prompt), shown)


def _cut(heading: str, text: str) -> CutText:
    return CutText(heading, text[:LONGEST_TEXT], max(0, len(text) - LONGEST_TEXT))
