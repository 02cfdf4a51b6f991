"""The table of steps, in the order of the default pipeline. A new step is one line here and one in `[curate]`."""

from __future__ import annotations

from tutelage.config.curation import CurateSettings
from tutelage.curate.consistency import CONSISTENCY
from tutelage.curate.decontaminate import DECONTAMINATE
from tutelage.curate.exact_duplicates import EXACT_DUPLICATES
from tutelage.curate.judge import JUDGE
from tutelage.curate.mixing import MIX
from tutelage.curate.model_scores import MODEL_SCORES
from tutelage.curate.near_duplicates import NEAR_DUPLICATES
from tutelage.curate.normalize import NORMALIZE
from tutelage.curate.quality import QUALITY
from tutelage.curate.selection import SELECT
from tutelage.curate.semantic_duplicates import SEMANTIC_DUPLICATES
from tutelage.curate.sharegpt import SHAREGPT
from tutelage.curate.splitting import SPLIT
from tutelage.curate.step import AnyStep, CorpusStep, RowStep, StepContext

STEPS: tuple[AnyStep, ...] = (
    NORMALIZE,
    SHAREGPT,
    QUALITY,
    EXACT_DUPLICATES,
    DECONTAMINATE,
    NEAR_DUPLICATES,
    SEMANTIC_DUPLICATES,
    CONSISTENCY,
    MODEL_SCORES,
    JUDGE,
    SELECT,
    SPLIT,
    MIX,
)
BY_NAME = {definition.name: definition for definition in STEPS}


def build_steps(settings: CurateSettings, context: StepContext) -> list[RowStep | CorpusStep]:
    """The steps that the settings name, in their order, each ready to be used.

    Raises:
        TutelageError: one of them cannot work: a package, a word list or a file that it needs is missing.
    """
    return [BY_NAME[name].build(getattr(settings, name), context) for name in settings.steps]
