"""Replies that are JSON by their beginning, or by the name of their fence, and that no parser reads."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import BadJsonSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.curate.screens import SPACE

_BEGINS: Final = re.compile(r"\s*(?:\{\s*\"[^\"\n]{1,80}\"\s*:|\[\s*\{\s*\"[^\"\n]{1,80}\"\s*:|\{\s*\}|\[\s*\])")
_FENCE: Final = re.compile(
    r"^[ \t]*```[ \t]*json[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
_SKETCH: Final = re.compile(
    r"(?:^|[\s,\[{:])(?://|/\*|#)|\.\.\.|…|\{\{|<[a-zA-Z_ ]+>|\{%|\$\{|:\s*(?:string|number|boolean|int)\b"
)
"""Comments, ellipses and slots: JSON in documentation, which shows a form and is not meant for a parser."""
_STRING: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"(?=\s*[,:\]}\n]|\s*\Z)')
"""What a sketch has in its strings is data, not a comment: a URL, three dots in a sentence."""
_STARTS: Final = ("{", "[", '"')
"""Of a block: one that begins with a word, such as `GET index/_search`, is a request that has JSON in it."""
_DECODER: Final = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class BadJson:
    """Finds JSON that does not parse; several values one after another (JSON lines), or words behind it, are fine."""

    settings: BadJsonSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows that begin with a bracket, or have a block of JSON."""
        return chunk.learned.rows_with(rf"\A[{SPACE}]*[\[{{]|```json|```JSON")

    def __call__(self, row: RowTexts) -> str | None:
        """The parser's words and the place."""
        for text in row.replies:
            problem = _problem(text) if _BEGINS.match(text) else None
            if problem is not None:
                return f"a reply that begins as JSON: {problem}"
            if "```json" in text or "```JSON" in text:
                for block in _FENCE.findall(text):
                    if block.lstrip()[:1] in _STARTS and (problem := _problem(block)) is not None:
                        return f"a json block: {problem}"
        return None


def _problem(text: str) -> str | None:
    stripped = text.strip()
    if not stripped:
        return None
    try:
        _DECODER.raw_decode(stripped)
    except ValueError as error:
        if _SKETCH.search(_STRING.sub('""', stripped)):
            return None
        place = getattr(error, "pos", 0)
        return f"{getattr(error, 'msg', 'cannot be read')} at character {place}: {excerpt(stripped, place)}"
    except RecursionError:
        return None
    return None


BAD_JSON = RuleDefinition("bad_json_in_reply", "JSON in a reply that does not parse", BadJson)
