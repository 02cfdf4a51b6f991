"""The program `tutelage`, also as `python -m tutelage` and `torchrun -m tutelage`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tutelage.system.startup import restart_with_environment

COMPUTE_COMMANDS = {"train", "evaluate", "chat", "serve"}
"""Commands whose time goes into products of matrices."""
NO_COMPUTE_OPTIONS = {"--dry-run", "--explain", "--help", "-h"}
"""Options with which none of them computes."""


def program() -> None:
    """Run the command line; what computes starts with the environment that it computes best in."""
    handles_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's `&` has it ignored
    if handles_interrupt:  # until a command can tell it better: libraries that are being imported make a mess of it
        signal.signal(signal.SIGINT, _exit_on_interrupt)
    if COMPUTE_COMMANDS.intersection(sys.argv[1:2]) and not NO_COMPUTE_OPTIONS.intersection(sys.argv):
        restart_with_environment()
    from tutelage.cli import main  # after that, as it takes a second
    from tutelage.cli.crash import take_over

    take_over()
    if handles_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run_main(main)
    except KeyboardInterrupt:  # a second one, while the first was being told
        _exit_on_interrupt()
    finally:
        if handles_interrupt:
            signal.signal(signal.SIGINT, _exit_on_interrupt)


def _run_main(main: Callable[[], None]) -> None:
    """Run the command line, in one process or as one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from tutelage.distributed.failure import exit_without_teardown

        exit_without_teardown(main)
    else:
        main()


def _exit_on_interrupt(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    if os.environ.get("RANK", "0") == "0":  # one line for all processes of a run
        os.write(2, b"stopped\n")
    os._exit(130)


if __name__ == "__main__":
    program()
