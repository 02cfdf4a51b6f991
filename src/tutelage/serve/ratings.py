"""The page to talk to two models side by side, and the file of what people say is better."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage.errors import SaveError, cause_of, remedy
from tutelage.report.html.offline import own_parts, script_json, template

FILE = "ratings.jsonl"


class RatedReply(BaseModel):
    """A reply, whose it is, and what was asked."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    model: str
    messages: list[dict[str, str]] = Field(min_length=1)
    reply: str


class Verdict(BaseModel):
    """Which of two replies is better."""

    model_config = ConfigDict(extra="forbid", strict=True)

    verdict: Literal["left", "tie", "right"]
    left: RatedReply
    right: RatedReply


class Ratings:
    """The file of a folder that verdicts are written to, a line each.

    Args:
        folder: made where it is missing.

    Raises:
        SaveError: it cannot be.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._lock = folder / FILE, threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._save_error(error) from error

    def add(self, verdict: Verdict) -> None:
        """Write a verdict behind the others.

        Raises:
            SaveError: the disk refuses.
        """
        line = json.dumps({"time": int(time.time()), **verdict.model_dump()}, ensure_ascii=False) + "\n"
        try:
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._save_error(error) from error

    def _save_error(self, error: OSError) -> SaveError:
        return SaveError(
            "Ratings cannot be written",
            where=str(self.path),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with --ratings"),
        )


def talk_page(*, needs_key: bool, rates: bool) -> tuple[str, str]:
    """The page, and the policy for its header.

    Args:
        needs_key: requests must bring a key.
        rates: verdicts are taken.
    """
    facts: dict[str, Any] = {"needs_key": needs_key, "rates": rates}
    parts = own_parts(style=("page.css", "talk_page.css"), script=("talk_page.js",), may_fetch=True)
    return template("talk_page.html").render(facts=script_json(facts), **parts), parts["policy"]
