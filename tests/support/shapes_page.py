"""Prints the page of row shapes from the facts: python -m tests.support.shapes_page > docs/formats_shapes.md"""

from __future__ import annotations

import sys

from tutelage.formats import row_shapes

HEAD = """# Row shapes

Look here whether your rows are read as they stand: what the shape is called, what becomes of its rows, and what other
loaders easily get wrong in it. `tutelage see FILE` says which shape won and by which columns; `--format NAME` asks for
one; `tutelage see --formats` lists them. What the five base shapes need is in [formats.md](formats.md).

The table is printed from the facts in `src/tutelage/formats/row_shapes`, and a test holds it against them. A shape that
is refused names what to do instead. Where the last column says that no row could be seen, the shape is read as it was
described from memory: look at the first rows with `tutelage see` before you rely on it.
"""
COLUMNS = ("number", "name", "what it is", "what becomes of it", "the trap", "where it was seen")


def page() -> str:
    """The whole page."""
    rows = [COLUMNS, ("---:", *["---"] * (len(COLUMNS) - 1))]
    for shape in row_shapes().values():
        outcome = f"refused: {shape.fix}" if shape.refuse else shape.outcome
        cells = (str(shape.number), f"`{shape.name}`", shape.title, outcome, shape.trap, shape.source)
        rows.append(tuple(cell.replace("|", "\\|") for cell in cells))
    numbers = {shape.number for shape in row_shapes().values()}
    refused = {shape.number for shape in row_shapes().values() if shape.refuse}
    read = {shape.number for shape in row_shapes().values() if not shape.refuse}
    counts = (
        f"{len(row_shapes())} shapes of {len(numbers)} kinds of data: {len(read)} kinds are read, and "
        f"{len(refused - read)} are only refused by name."
    )
    return "\n".join([HEAD, counts, "", *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
