"""The row shapes that people bring beside the five base shapes.

The facts (`*.toml`) say how each is recognized, what is easily misread in it and where it was seen; beside them stand
the functions that make a row in a base form of it, which `shapes.conversation_from` then reads.
"""

from __future__ import annotations
