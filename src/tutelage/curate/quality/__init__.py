"""Row -> Row | Drop by rules of quality, one file each: no rule knows another, each says what it found with words."""

from tutelage.curate.quality.step import QUALITY, Quality

__all__ = ["QUALITY", "Quality"]
