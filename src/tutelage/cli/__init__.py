"""The command line. `tutelage COMMAND --help` teaches; errors say what to do; `--json` is for programs."""

from tutelage.cli.app import main, program

__all__ = ["main", "program"]
