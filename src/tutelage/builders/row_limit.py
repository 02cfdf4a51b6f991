"""How long the rows of a recipe may be, for commands that look at a recipe and train nothing. Imports without torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.config import Settings
from tutelage.model.configuration import CONFIG_FILE

if TYPE_CHECKING:
    from tutelage.builders.positions import Positions


def held_to_positions(
    settings: Settings, base: Path, *, log: Callable[[str], None]
) -> tuple[Settings, Positions | None]:
    """The settings by which a run prepares its data, `pack.max_seq_length` no higher than its model computes.

    Args:
        settings: of the run, with what an adapter has settled (`start.with_adapters_own`).
        base: the folder it starts from.
        log: told where they differ, and where the model's positions cannot be looked at here.

    Returns:
        the settings, and the positions; None for these, and the settings as they are, where torch, transformers or the
            model's configuration is missing.

    Raises:
        DataError: the configuration is not that of a causal language model.
        ConfigError: virtual tokens leave no room for others.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    missing += [] if (base / CONFIG_FILE).is_file() else [f"its {CONFIG_FILE}"]
    if missing:
        log(f"The model's positions are not looked at, for want of {' and '.join(missing)}: a run may drop more rows")
        return settings, None
    from tutelage.builders.positions import positions_of

    positions = positions_of(settings, base)
    return positions.within(settings, log=log), positions
