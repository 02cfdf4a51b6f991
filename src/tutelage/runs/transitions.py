"""Which items of the general set were lost and gained, as `result.json` holds them under `transitions`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.runs.fields import Fields


@dataclass(frozen=True, slots=True)
class LostItem:
    """An item that was right before training and wrong after it, with both replies."""

    id: str
    capability: str
    prompt: str
    reference: str | None
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ItemTransitions:
    """The items of the general set whose reply was right on one side alone.

    Args:
        lost: ids by capability, right before and wrong after.
        gained: ids by capability, wrong before and right after.
        lost_items: some of the first, with both replies.
    """

    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gained: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lost_items: tuple[LostItem, ...] = ()


def read_transitions(fields: Fields) -> ItemTransitions | None:
    """What a file says; None where it says nothing, as files of older versions. What is damaged is left out."""
    if not fields.content:
        return None
    lost, gained = (fields.inner(key) for key in ("lost", "gained"))
    return ItemTransitions(
        {name: tuple(lost.lines(name)) for name in lost.content},
        {name: tuple(gained.lines(name)) for name in gained.content},
        tuple(_lost_item(item) for item in fields.items("lost_items")),
    )


def _lost_item(fields: Fields) -> LostItem:
    return LostItem(
        id=fields.text("id") or "",
        capability=fields.text("capability") or "",
        prompt=fields.text("prompt") or "",
        reference=fields.text("reference"),
        before=fields.text("before") or "",
        after=fields.text("after") or "",
    )
