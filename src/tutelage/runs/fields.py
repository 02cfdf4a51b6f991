"""Typed reading of JSON that may be wrong: a value of another kind becomes None and is named, never passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object, read field by field.

    Args:
        content: the object; anything else counts as empty and is named in `notices`.
        where: the file and place, for the notices.
        notices: receives one sentence for each value that could not be used.
    """

    content: Mapping[str, Any]
    where: str
    notices: list[str]

    @classmethod
    def of(cls, value: Any, where: str, notices: list[str]) -> Fields:
        """Wrap a decoded JSON value; one that is no object is named and read as empty."""
        if isinstance(value, dict):
            return cls(value, where, notices)
        notices.append(f"{where} holds {_abbreviated(value)} where an object was expected.")
        return cls({}, where, notices)

    def number(self, key: str) -> float | None:
        """A number (NaN and infinities included), or None; integers stay integers."""
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _fits_float(value):
            self._refuse(key, value, "a number")
            return None
        return value

    def integer(self, key: str) -> int | None:
        """A whole number, or None; 3.0 counts as 3."""
        value = self.number(key)
        if value is None or isinstance(value, int):
            return value
        if value.is_integer():
            return int(value)
        self._refuse(key, value, "a whole number")
        return None

    def text(self, key: str) -> str | None:
        """A text, or None; a number is taken as it is written."""
        value = self.content.get(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return str(value)
        self._refuse(key, value, "a text")
        return None

    def flag(self, key: str) -> bool | None:
        """True, False, or None."""
        value = self.content.get(key)
        if value is None or isinstance(value, bool):
            return value
        self._refuse(key, value, "true or false")
        return None

    def inner(self, key: str) -> Fields:
        """The object under `key`; empty where there is none."""
        value = self.content.get(key)
        return Fields.of({} if value is None else value, f"{self.where}, {key}", self.notices)

    def items(self, key: str) -> list[Fields]:
        """The objects listed under `key`; empty where there is no list."""
        value = self.content.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self._refuse(key, value, "a list")
            return []
        return [Fields.of(item, f"{self.where}, {key}[{index}]", self.notices) for index, item in enumerate(value)]

    def lines(self, key: str) -> list[str]:
        """The texts listed under `key`; empty where there is no list of texts."""
        value = self.content.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            self._refuse(key, value, "a list of texts")
            return []
        return list(value)

    def numbers(self) -> dict[str, float | None]:
        """Every field as a number."""
        return {key: self.number(key) for key in self.content}

    def counts(self) -> dict[str, int]:
        """Every field as a whole number; fields that hold none are left out (and named)."""
        values = {key: self.integer(key) for key in self.content}
        return {key: value for key, value in values.items() if value is not None}

    def texts(self) -> dict[str, str]:
        """Every field as a text; null fields are left out."""
        values = {key: self.text(key) for key in self.content}
        return {key: value for key, value in values.items() if value is not None}

    def _refuse(self, key: str, value: Any, expected: str) -> None:
        self.notices.append(f"{self.where}: {key} is {_abbreviated(value)}, expected {expected}; it is left out.")


def _fits_float(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _abbreviated(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not _fits_float(value):
        return "a number too large to read"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…"
