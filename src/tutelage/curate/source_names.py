"""The names of sources in settings, held against those there are: a misspelled one would be passed over in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from tutelage.errors import ConfigError

OTHERS: Final = "*"
"""In tables by source: each source that is not named."""
_SHOWN: Final = 8


def require_sources(setting: str, names: Iterable[str], known: Sequence[str], *, but: Collection[str] = ()) -> None:
    """Refuse names that no source has.

    Args:
        setting: the table that has the names.
        names: its keys.
        known: the sources there are.
        but: keys that are no names, such as `OTHERS`.

    Raises:
        ConfigError: one is not known; with the nearest that is.
    """
    for name in names:
        if name not in known and name not in but:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            listed = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
            raise ConfigError(
                f"{setting} names a source that is not there",
                where=f"{setting} = '{name}'",
                found=name,
                expected=f"one of {listed}" if known else "a source that is read",
                fix=f"did you mean '{near[0]}'?" if near else "name it as it was named to read",
            )
