"""What of a text changed since it was last kept: a text that grows word by word is not written out at every word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """At character `at` of a text, `cut` characters give way to `text`."""

    at: int
    cut: int
    text: str


def edit_between(before: str, after: str) -> Edit:
    """What makes one text of the other: all between the beginning and the end that they share."""
    shortest = min(len(before), len(after))
    at = 0
    while at < shortest and before[at] == after[at]:
        at += 1
    end = 0
    while end < shortest - at and before[-1 - end] == after[-1 - end]:
        end += 1
    return Edit(at, len(before) - at - end, after[at : len(after) - end])


def edited(before: str, edit: Edit) -> str:
    """The text that the edit makes."""
    return before[: edit.at] + edit.text + before[edit.at + edit.cut :]
