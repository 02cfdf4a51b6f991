"""General sets that arrive inside the package: `probes` for all capabilities, `probes/arithmetic` for one."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from tutelage.errors import SourceNotFoundError
from tutelage.formats.sources import SourceFile

PROBES = "probes"
"""Short name of the set, and its folder beside this file, which is a link to `datasets/probes` in a checkout."""
SUFFIX = ".jsonl"


def capabilities() -> tuple[str, ...]:
    """The capabilities that the probes have a file of, sorted by name."""
    return tuple(sorted(file.stem for file in _folder().glob(f"*{SUFFIX}")))


def packaged_files(name: str) -> tuple[SourceFile, ...]:
    """The files behind a short name of `evaluate.general`; none where it is no such name.

    Args:
        name: as it stands in the settings. A short name goes before a file of that name, for which to write `./probes`.

    Raises:
        SourceNotFoundError: the probes have no such capability, and there is no such file; the nearest name is given.
    """
    known = capabilities()
    if name == PROBES:
        return tuple(_file(capability) for capability in known)
    head, _, capability = name.partition("/")
    if head != PROBES or (capability not in known and Path(name).is_file()):
        return ()
    if capability in known:
        return (_file(capability),)
    near = get_close_matches(capability.lower().removesuffix(SUFFIX), known, n=1)
    raise SourceNotFoundError(
        f"The probes have no capability '{capability}'",
        where="evaluate.general",
        found=name,
        expected=f"{PROBES}, or {PROBES}/ and one of {', '.join(known)}",
        fix=f"did you mean '{PROBES}/{near[0]}'?" if near else "name one of these, or the path of a file",
    )


def _file(capability: str) -> SourceFile:
    return SourceFile(_folder() / f"{capability}{SUFFIX}", f"{PROBES}/{capability}")


def _folder() -> Path:
    return Path(str(files("tutelage.evaluate").joinpath(PROBES)))
