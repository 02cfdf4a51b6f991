"""Errors that help: what happened, where, what was found, what was expected, one thing to do.

Each is also the standard-library error a caller would expect, so `except ValueError` keeps working.
"""

from __future__ import annotations

import errno
import os
import shlex


class TutelageError(Exception):
    """Base of every error meant for the person at the keyboard.

    Args:
        what: one sentence, no full stop needed.
        where: file, row or field.
        found: what was there.
        expected: what should have been there.
        fix: one thing to do.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.expected, self.fix = what, where, found, expected, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "found", "expected"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label + ':':<10}{value}")
        if self.fix is not None:
            lines.append(f"  {'do:':<10}{self.fix}")
        return "\n".join(lines)


class ConfigError(TutelageError, ValueError):
    """Settings that cannot work: unknown key, wrong type, contradiction."""


class DataError(TutelageError, ValueError):
    """A file or row that cannot be used; `where` is its address."""


class SourceNotFoundError(TutelageError, FileNotFoundError):
    """A model, data set or file that is not there."""


class TemplateError(TutelageError, ValueError):
    """A chat template that is missing, does not parse, or misbehaves."""


class DependencyError(TutelageError, ImportError):
    """An optional package that this command needs; `fix` is the install line."""


class FitError(TutelageError, MemoryError):
    """Something that does not fit in memory."""


class SaveError(TutelageError, OSError):
    """A write that failed; what was there before is untouched."""


class CheckpointError(TutelageError, ValueError):
    """A checkpoint that is damaged or belongs to other settings."""


class EngineError(TutelageError, RuntimeError):
    """Processes or devices that cannot work together."""


class EndpointError(TutelageError, RuntimeError):
    """A server that cannot be reached, refuses, or answers with something else than was asked for."""


class TrainingError(TutelageError, ArithmeticError):
    """A run that must stop: NaN, Inf, a loss spike."""


def cause_of(error: Exception) -> str:
    """What the system or a library said, in one line, for an error's `found`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().split("\n")[0] or type(error).__name__


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def remedy(error: Exception, *, elsewhere: str = "") -> str:
    """The one thing to do about a write that failed, by what the system said.

    Args:
        error: of the system, or of a library that has the system's words in its own.
        elsewhere: how another place is chosen; left out, as for a run's folder.
    """
    if _is_of(error, _NO_SPACE):
        return f"free some space, or {elsewhere}" if elsewhere else "free some space"
    if _is_of(error, _FORBIDDEN):
        return f"make the folder writable for this user, or {elsewhere or 'choose another with folder=PATH'}"
    return elsewhere or "choose another place with folder=PATH or name=NAME"


def _is_of(error: Exception, numbers: tuple[int, ...]) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(os.strerror(number) in str(error) for number in numbers)  # safetensors raises no OSError


def command(*words: object) -> str:
    """A command line of ours that can be copied into a shell as it stands, whatever its words hold.

    Args:
        words: what follows the program's name.
    """
    return " ".join(["tutelage", *(shell_word(str(word)) for word in words)])


def shell_word(word: str) -> str:
    """One word, quoted where a shell would read it otherwise; characters that show nothing are written by number."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "$'" + "".join(character if character.isprintable() else _hex_escapes(character) for character in escaped) + "'"
    )


def _hex_escapes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
