"""What several test folders share: oracles, tiny models, and programs that tests start."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout: programs that tests start find `tests` there."""
