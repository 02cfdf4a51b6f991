"""The program `tutelage`, also as `python -m tutelage` and `torchrun -m tutelage`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tutelage.system.startup import start_again

COMPUTING = {"train", "evaluate", "chat"}
"""Commands whose time goes into products of matrices."""
LOOKING = {"--dry-run", "--explain", "--help", "-h"}
"""Options with which none of them computes."""


def program() -> None:
    """Run the command line; what computes starts with the environment that it computes best in."""
    asked_to_heed = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's `&` has it ignored
    if asked_to_heed:  # until a command can tell it better: libraries that are being imported make a mess of it
        signal.signal(signal.SIGINT, _stop_at_once)
    if COMPUTING.intersection(sys.argv[1:2]) and not LOOKING.intersection(sys.argv):
        start_again()
    from tutelage.cli import main  # after that, as it takes a second
    from tutelage.cli.crash import take_over

    take_over()
    if asked_to_heed:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _in_its_place(main)
    except KeyboardInterrupt:  # a second one, while the first was being told
        _stop_at_once()
    finally:
        if asked_to_heed:
            signal.signal(signal.SIGINT, _stop_at_once)


def _in_its_place(main: Callable[[], None]) -> None:
    """Run the command line, in one process or as one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from tutelage.distributed.failure import end_at_once

        end_at_once(main)
    else:
        main()


def _stop_at_once(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    if os.environ.get("RANK", "0") == "0":  # one line for all processes of a run
        os.write(2, b"stopped\n")
    os._exit(130)


if __name__ == "__main__":
    program()
