from __future__ import annotations

from pathlib import Path

from tests.support.shapes_page import page

PAGE = Path(__file__).resolve().parents[3] / "docs/formats_shapes.md"


def test_the_page_of_shapes_is_printed_from_the_facts():
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.support.shapes_page > docs/formats_shapes.md"
