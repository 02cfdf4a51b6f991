"""The program `tutelage`, also as `python -m tutelage` and `torchrun -m tutelage`."""

from __future__ import annotations

import os
import sys

from tutelage.model.startup import start_again

COMPUTING = {"train", "evaluate", "chat"}
"""Commands whose time goes into products of matrices."""
LOOKING = {"--dry-run", "--explain", "--help", "-h"}
"""Options with which none of them computes."""


def program() -> None:
    """Run the command line; what computes gets the better allocator first, and threads that do not wait spinning."""
    if COMPUTING.intersection(sys.argv[1:2]) and not LOOKING.intersection(sys.argv):
        start_again()
    from tutelage.cli import main  # after that, as it takes a second

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from tutelage.model.ending import end_at_once

        end_at_once(main)
    else:
        main()


if __name__ == "__main__":
    program()
