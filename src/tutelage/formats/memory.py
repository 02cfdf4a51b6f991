"""Rows that a program hands in -> a file of JSON lines in the cache, which is then read like any other data.

The file is named by its content, and a recipe names it `<data:0123456789abcdef>`, so a resume and a replay find the
same rows again. Errors and the ledger call its rows `<data>[17]`, counted from 0 as Python does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tutelage.errors import DataError, SaveError, SourceNotFoundError, cause_of, remedy
from tutelage.system.files import cache_folder, publish
from tutelage.types import Address

HASH_LETTERS: Final = 16
_NAMED: Final = re.compile(rf"<([a-z]+):([0-9a-f]{{{HASH_LETTERS}}})>")


def keep_rows(rows: Iterable[Any], label: str) -> str:
    """Write the rows where `kept_rows` finds them; return the name by which settings name them.

    Args:
        rows: mappings of values that JSON can hold; drawn once, one at a time.
        label: what errors and the ledger call them: `data` makes `<data>[0]`.

    Raises:
        DataError: there are none; or a row, with its address, is no mapping or holds what JSON cannot.
        SaveError: the disk refuses.
    """
    folder = _folder()
    scratch: Path | None = None
    digest = hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".aside-", dir=folder)
        scratch = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            for number, row in enumerate(rows):
                line = _line(row, Address(f"<{label}>", number, "item"))
                digest.update(line)
                stream.write(line)
            size_bytes = stream.tell()
        if not size_bytes:
            raise DataError("No rows were handed in", where=f"<{label}>", found="an empty one", fix="hand in some rows")
        source = digest.hexdigest()[:HASH_LETTERS]
        publish(scratch, folder / f"{source}.jsonl")
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(
            "The rows that were handed in could not be kept for this run and for those that repeat it",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error
    finally:
        if scratch is not None:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
    return f"<{label}:{source}>"


def kept_rows(source: str) -> tuple[Path, str] | None:
    """The file behind a name that `keep_rows` gave, and what addresses call it; None for any other source.

    Raises:
        SourceNotFoundError: the file is not in the cache any more.
    """
    named = _NAMED.fullmatch(source)
    if named is None:
        return None
    label, content = named.groups()
    path = _folder() / f"{content}.jsonl"
    if not path.is_file():
        raise SourceNotFoundError(
            "These rows were handed in by a program, and are not in the cache any more",
            where=source,
            found=f"no {path}",
            expected="the rows that the run began with",
            fix="hand the same rows in again from Python: tutelage.train(..., resume=True)",
        )
    return path, f"<{label}>"


def _folder() -> Path:
    return cache_folder() / "rows"


def _line(row: Any, address: Address) -> bytes:
    if not isinstance(row, Mapping):
        raise _no_row(
            address,
            "A row that was handed in is no dict",
            f"a {type(row).__name__}",
            "for a table of pandas, hand in table.to_dict('records'); else make each row a dict",
        )
    try:
        plain = _plain(row, "")
        text = json.dumps(plain, ensure_ascii=False)
    except _NoJsonError as error:
        raise _no_row(
            address,
            "A row that was handed in holds something that is no JSON",
            str(error),
            "turn it into text or numbers, or leave it out of the row",
        ) from None
    except (RecursionError, ValueError) as error:  # inside of itself; an integer of too many digits
        raise _no_row(
            address, "A row that was handed in cannot be written as JSON", cause_of(error), "leave that value out"
        ) from error
    # Half of a surrogate pair has no bytes in UTF-8; as its escape it reaches the reader, which drops the row for it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


class _NoJsonError(Exception):
    """What stands where in a row, in words."""


def _plain(value: Any, where: str) -> Any:
    """The value as JSON has it: nothing is lost, and nothing becomes another; a key that is no text is refused.

    Tuples and arrays become lists, as JSON has no other. NaN stays: what it means is for the shapes to say.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if strange := [key for key in value if not isinstance(key, str)]:
            raise _NoJsonError(f"{where or 'the row'} has the key {strange[0]!r}, which is no text")
        return {str(key): _plain(inner, f"{where}.{key}" if where else str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    import numpy as np  # here, as few hand in what needs it

    if isinstance(value, np.ndarray | np.generic):
        as_python = value.tolist()
        if not isinstance(as_python, np.generic):
            return _plain(as_python, where)
    raise _NoJsonError(f"{where} is a {type(value).__module__}.{type(value).__name__}")


def _no_row(address: Address, what: str, problem: str, fix: str) -> DataError:
    return DataError(
        what, where=str(address), found=problem, expected="a dict of texts, numbers, lists and dicts", fix=fix
    )
