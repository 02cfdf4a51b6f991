"""The few elements that our drawings are made of; coordinates in view-box units, classes that the style sheet fills."""

from __future__ import annotations

from xml.etree import ElementTree

Point = tuple[float, float]


def line(root: ElementTree.Element, start: Point, end: Point, style: str) -> None:
    """A straight line."""
    ElementTree.SubElement(
        root,
        "line",
        {"x1": place(start[0]), "y1": place(start[1]), "x2": place(end[0]), "y2": place(end[1]), "class": style},
    )


def text(root: ElementTree.Element, x: float, y: float, content: str, style: str) -> None:
    """Words; whatever they hold is escaped as the drawing is written out."""
    ElementTree.SubElement(root, "text", {"x": place(x), "y": place(y), "class": style}).text = content


def place(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")
