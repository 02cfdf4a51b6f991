"""The program `tutelage`, also as `python -m tutelage` and `torchrun -m tutelage`."""

from __future__ import annotations

import os
import sys

from tutelage.model.allocator import better_allocator, start_again_with

LOOKING = {"--dry-run", "--explain", "--help", "-h"}
"""Options with which `train` trains nothing."""


def program() -> None:
    """Run the command line; a training run gets the better allocator first, if there is one here."""
    if sys.argv[1:2] == ["train"] and not LOOKING.intersection(sys.argv):
        library = better_allocator(os.environ)
        if library is not None:
            start_again_with(library)
    from tutelage.cli import main  # after that, as it takes a second

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from tutelage.model.ending import end_at_once

        end_at_once(main)
    else:
        main()


if __name__ == "__main__":
    program()
