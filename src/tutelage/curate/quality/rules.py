"""The table of rules, from cheap to dear. A new rule is a file, one line here and one table in `[curate.quality]`."""

from __future__ import annotations

from typing import Final

from tutelage.curate.quality.bad_json import BAD_JSON
from tutelage.curate.quality.code_fences import CODE_FENCES
from tutelage.curate.quality.cut import CUT
from tutelage.curate.quality.empty import EMPTY
from tutelage.curate.quality.formulas import FORMULAS
from tutelage.curate.quality.language import LANGUAGE
from tutelage.curate.quality.length_ratio import LENGTH_RATIO
from tutelage.curate.quality.personal import PERSONAL
from tutelage.curate.quality.refusal import REFUSAL
from tutelage.curate.quality.repetition import REPETITION
from tutelage.curate.quality.rule import AnyRule
from tutelage.curate.quality.too_short import TOO_SHORT
from tutelage.curate.quality.toxicity import TOXICITY

RULES: Final[tuple[AnyRule, ...]] = (
    EMPTY,
    TOO_SHORT,
    LENGTH_RATIO,
    CODE_FENCES,
    BAD_JSON,
    CUT,
    FORMULAS,
    REFUSAL,
    PERSONAL,
    REPETITION,
    TOXICITY,
    LANGUAGE,
)
