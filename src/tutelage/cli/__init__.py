"""The command line. `tutelage COMMAND --help` teaches; errors say what to do; `--json` is for programs."""

from tutelage.cli.app import main

__all__ = ["main"]
