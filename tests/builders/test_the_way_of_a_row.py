"""How many files hand a row on, from bytes to a packed row: counted on the way of one real row."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tutelage
from tutelage.builders.dataset import prepare
from tutelage.config import from_mapping
from tutelage.formats.rawrow import RawRow
from tutelage.pack import batches
from tutelage.pack.arrow_layout import StoredChunk
from tutelage.pack.sampler import Sampler
from tutelage.render.drafts import Draft
from tutelage.render.example_codec import ExampleColumns
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.replies import RenderedTurn
from tutelage.render.sequences import ProvenTurn
from tutelage.render.workers import ChunkRow, ProvenChunk, _Answer
from tutelage.types import Batch, Conversation, Example, PackedSequence, Proven

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(tutelage.__file__).parent
WHOLE = (
    *(RawRow, Conversation, RenderedRow, Draft, Proven, Example),
    *(_Answer, ChunkRow, ProvenChunk, ExampleColumns, StoredChunk, PackedSequence, Batch),
)
"""The forms of a row, alone or among others; its line of bytes is another."""
PARTS = (RenderedTurn, ProvenTurn)
"""A turn of a row, as text and as ids."""
MOST_FILES = 13


def holds(value: Any, forms: tuple[type, ...], depth: int = 3) -> bool:
    """Whether a value is one of the forms, or a list, tuple or dict with one in it."""
    if isinstance(value, forms):
        return True
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return depth > 0 and any(holds(member, forms, depth - 1) for member in members)


class Trace:
    """Which files of the package hand a row to another of them, as they do."""

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.whole: set[str] = set()
        self.parts: set[str] = set()
        self.given: set[str] = set()

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        file, caller = name_of(frame), name_of(frame.f_back)
        if event not in ("call", "return") or file is None or caller is None or file == caller:
            return
        if event == "call":
            is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR  # each of its values is asked for by a call
            if not is_generator and any(isinstance(argument, ProvenChunk) for argument in frame.f_locals.values()):
                self.given.add(file)
        elif holds(value, WHOLE) or (isinstance(value, bytes) and value == self.line):
            self.whole.add(file)
        elif holds(value, PARTS):
            self.parts.add(file)


def name_of(frame: FrameType | None) -> str | None:
    """The file of a function, as seen from the package; None for a function of another."""
    path = None if frame is None else Path(frame.f_code.co_filename)
    return path.relative_to(SOURCE).as_posix() if path is not None and path.is_relative_to(SOURCE) else None


@pytest.fixture
def trace(tiny_tokenizer_folder: Path, tmp_path: Path) -> Trace:
    lines = (ROOT / "datasets/support/train.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "one.jsonl"
    path.write_bytes(lines[2])
    data = {"train": [str(path)], "validation_ratio": 0.0, "workers": 1}
    settings = from_mapping({"model": {"name": "tiny"}, "data": data}, [], where="test")
    found = Trace(lines[2])
    profile = sys.getprofile()
    sys.setprofile(found)
    try:
        examples = prepare(settings, tiny_tokenizer_folder).train
        order = Sampler(len(examples), batch_size=1, epochs=1, seed=0)
        (batch,) = batches(examples, order, row_tokens=8192)
    finally:
        sys.setprofile(profile)
    assert len(batch.rows) == 1
    assert batch.rows[0].addresses[0].number == 1
    return found


def test_thirteen_files_hand_a_row_on(trace: Trace) -> None:
    """A file hands a row on where a function of it returns or yields the row, whole and in any of its forms, to a
    function of another file of the package.

    The line of bytes is a form, and so is a chunk of rows. A check that is given a row and says something of it hands
    nothing on, and neither does one that makes a part of it: a turn, as text or as ids. A file that is given a chunk to
    keep is not counted either. Both are listed here, so that the row's way does not grow through them unseen.
    """
    page = (ROOT / "docs/the_way_of_a_row.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\d+\. `([\w/]+\.py)`", page, re.MULTILINE)
    assert trace.whole == set(listed)
    assert len(listed) == len(set(listed)) <= MOST_FILES
    assert trace.parts == {"render/turns.py", "render/sequences.py"}
    assert trace.given == {"pack/prepared_cache.py", "pack/example_store.py"}
