"""A fault of tutelage itself: one line for the person at the keyboard, and a file that says what is needed to mend it.

Nothing is sent from here. The file holds no environment, and what looks like a secret is taken out of it.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tutelage.errors import TutelageError, cause_of
from tutelage.report.console.terminal import printable
from tutelage.runs.folder import versions
from tutelage.system.files import cache_folder

STATUS = 70
"""Source: EX_SOFTWARE of sysexits.h, an internal error of the program."""

FOLDER = "crashes"
REMEDIES = {
    errno.EACCES: "give this user the right to it, or name another place",
    errno.EPERM: "give this user the right to it, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "name the file itself: the links lead round in a circle",
    errno.EIO: "see to the disk, or use a copy elsewhere",
    errno.EMFILE: "let more files be open at once: ulimit -n 4096",
    errno.ENFILE: "close other programs: the system has no more open files to give",
}
"""What the system says of files that is no fault of ours, and the one thing to do about it. Source: errno(3)."""
LONGEST_MESSAGE = 2000
"""Characters kept of an exception's own words, which may quote a row."""
MOST_CAUSES = 8
SHORTEST_SECRET = 8
"""Characters of an environment variable's value that are sought in the report; shorter ones stand in many words."""

HIDDEN = "[taken out]"
_SECRET_WORD = re.compile(r"token|key|secret|passw|passphrase|credential|auth", re.IGNORECASE)
_NAMED = re.compile(
    r"""(?P<name>[\w.-]*(?:token|key|secret|password|passwd|passphrase|credentials?|authorization)["']?"""
    r"""\s*[=:]\s*(?:Bearer\s+)?)(?P<value>"[^"]*"|'[^']*'|[^\s,;}\])]+)""",
    re.IGNORECASE,
)
_SECRET_OPTION = re.compile(r"(?:token|key|secret|password|passwd|passphrase|credentials?)$", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|AKIA[0-9A-Z]{16}"
    r"|AIza[\w-]{30,}|xox[abeprs]-[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|[0-9a-f]{40})\b"
)
"""Tokens that name their kind by how they begin, JSON web tokens, and the 40 hexadecimal digits of Weights & Biases."""
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def write_report(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write what is needed to find the fault into a file of its own, and return its place.

    Args:
        error: what nothing caught.
        arguments: of the command line, after the program's name.

    Raises:
        OSError: neither the cache nor the folder for temporary files takes it.
    """
    text = report_text(error, arguments, os.environ)
    name = f"crash-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{os.getpid()}.txt"
    try:
        return _written(cache_folder() / FOLDER, name, text)
    except OSError:
        return _written(Path(tempfile.gettempdir()), f"tutelage-{name}", text)


def _written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
    return path


def report_text(error: BaseException, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Versions, the command line, and where the error came from, without what looks like a secret.

    Args:
        error: the exception.
        arguments: of the command line.
        environment: whose secrets are to be taken out; it is not written down.
    """
    lines = [
        "A fault of tutelage. Names of files, and words of a row that an error quotes, may stand here: read it before",
        "it goes to anybody.",
        "",
        f"command:  {_command(arguments)}",
        f"time:     {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"system:   {platform.platform()}, Python {platform.python_version()}",
        f"versions: {', '.join(f'{name} {version}' for name, version in versions().items())}",
        "",
        *_chain(error),
    ]
    text = printable("\n".join(lines) + "\n")
    for name, value in environment.items():
        if _SECRET_WORD.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, _IN_ADDRESS.sub(HIDDEN, text))


def _chain(error: BaseException) -> Iterator[str]:
    """The error and what caused it, the newest first."""
    current: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if current is None:
            return
        summary = traceback.TracebackException.from_exception(current, compact=True)
        yield _without_named("".join(summary.format_exception_only()).rstrip()[:LONGEST_MESSAGE])
        yield "".join(summary.stack.format()).rstrip()
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        if current is not None:
            yield "\nwhich came of:"


def _command(arguments: Sequence[str]) -> str:
    """The command line, without the values of options and settings whose names call them secret."""
    words = ["tutelage"]
    for previous, word in zip(["", *arguments], arguments, strict=False):
        secret = previous.startswith("-") and "=" not in previous and _SECRET_OPTION.search(previous)
        words.append(HIDDEN if secret else _without_named(word))
    return shlex.join(words)


def _without_named(text: str) -> str:
    """The text without values that a name before them calls a token, a key or a password."""
    return _NAMED.sub(lambda match: match["name"] + HIDDEN, text)


def crash_lines(error: BaseException, arguments: Sequence[str]) -> tuple[str, ...]:
    """Write the report; return what to tell: what happened, where the report lies, and what to do with it."""
    if isinstance(error, MemoryError):
        what = "Memory ran out, and tutelage did not foresee it"
    elif isinstance(error, RecursionError):
        what = "Something is nested too deep, and tutelage did not foresee it"
    else:
        what = f"A fault of tutelage itself ({type(error).__name__})"
    message = _without_named(str(error).strip().split("\n")[0])[:200]
    try:
        report = str(write_report(error, arguments))
    except Exception as refused:  # noqa: BLE001 - what fails here must not hide what failed before
        report = f"could not be written ({cause_of(refused)}); TUTELAGE_CACHE=FOLDER names another place for it"
    lines = [what, f"  found:    {message}"] if message else [what]
    return (
        *lines,
        f"  report:   {report}",
        "  do:       read the report, then attach it to an issue of the project; nothing was sent from here",
    )


def of_the_system(error: OSError) -> TutelageError | None:
    """What the system refuses, as an error for people, where it names a file or says what is full; else None."""
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return TutelageError(
        "The system refuses a file or folder",
        where=None if error.filename is None else str(error.filename),
        found=cause_of(error),
        fix=remedy,
    )


def take_over() -> None:
    """Have faults in threads, and in what nobody waits for, told in the same way as those of a command."""

    def of_a_thread(fault: threading.ExceptHookArgs) -> None:
        if fault.exc_value is not None and not isinstance(fault.exc_value, SystemExit | KeyboardInterrupt):
            tell(fault.exc_value)

    def of_nobody(fault: sys.UnraisableHookArgs) -> None:
        if fault.exc_value is not None and not isinstance(fault.exc_value, SystemExit | KeyboardInterrupt):
            tell(fault.exc_value)

    threading.excepthook, sys.unraisablehook = of_a_thread, of_nobody


def tell(error: BaseException) -> None:
    """The same lines on standard error, for a fault that no command can end with: one of a thread."""
    first, *further_lines = crash_lines(error, sys.argv[1:])
    sys.stderr.write("\n".join(printable(line) for line in (f"error: {first}", *further_lines)) + "\n")
