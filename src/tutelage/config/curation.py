"""The `[curate]` section: which steps curation takes, in which order, and a table of settings for each of them.

The tables stand in the order of the default pipeline; the name of a table is the name of its step.
"""

from __future__ import annotations

import difflib

from pydantic import Field, field_validator

from tutelage.config.curation_consistency import ConsistencySettings
from tutelage.config.curation_decontaminate import DecontaminateSettings
from tutelage.config.curation_duplicates import (
    ExactDuplicatesSettings,
    NearDuplicatesSettings,
    SemanticDuplicatesSettings,
)
from tutelage.config.curation_judge import JudgeSettings
from tutelage.config.curation_mix import MixSettings
from tutelage.config.curation_normalize import NormalizeSettings
from tutelage.config.curation_quality import QualitySettings
from tutelage.config.curation_scores import ModelScoresSettings
from tutelage.config.curation_select import SelectSettings
from tutelage.config.curation_sharegpt import SharegptSettings
from tutelage.config.curation_split import SplitSettings
from tutelage.config.sections import Section, Text

DEFAULT_STEPS: list[str] = ["normalize", "quality", "exact_duplicates", "near_duplicates", "consistency"]
"""Those that are on unless `curate.steps` says otherwise, in the order they are taken."""


class CurateSettings(Section):
    """Which rows go on to training, and what is mended in them."""

    steps: list[Text] = Field(
        default=DEFAULT_STEPS,
        description="The steps, in the order they are taken; `tutelage curate --list-steps` names all of them; where "
        "none are named and evaluation sets are, or rows are held out, `decontaminate` is taken as well.",
        json_schema_extra={"source": "our choice: what is cheap comes first, so that what is dear sees fewer rows"},
    )
    licenses: dict[str, Text] = Field(
        default={},
        description="The license of a source, such as 'alpaca.json' = 'CC-BY-NC-4.0', for the data card; a source "
        "without one has that of the README.md beside it, if that names one.",
        json_schema_extra={"source": "the user's data: only its owner can say"},
    )

    normalize: NormalizeSettings = NormalizeSettings()
    sharegpt: SharegptSettings = SharegptSettings()
    quality: QualitySettings = QualitySettings()
    exact_duplicates: ExactDuplicatesSettings = ExactDuplicatesSettings()
    decontaminate: DecontaminateSettings = DecontaminateSettings()
    near_duplicates: NearDuplicatesSettings = NearDuplicatesSettings()
    semantic_duplicates: SemanticDuplicatesSettings = SemanticDuplicatesSettings()
    consistency: ConsistencySettings = ConsistencySettings()
    model_scores: ModelScoresSettings = ModelScoresSettings()
    judge: JudgeSettings = JudgeSettings()
    select: SelectSettings = SelectSettings()
    split: SplitSettings = SplitSettings()
    mix: MixSettings = MixSettings()

    @field_validator("steps")
    @classmethod
    def _names_steps(cls, steps: list[str]) -> list[str]:
        known = step_names()
        for name in steps:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                hint = f'did you mean "{near[0]}"?' if near else f"the steps are {', '.join(known)}"
                raise ValueError(f'but there is no step "{name}"; {hint}')
        if duplicate := next((name for name in steps if steps.count(name) > 1), None):
            raise ValueError(f'but the step "{duplicate}" is there twice')
        behind_mix = steps[steps.index("mix") + 1 :] if "mix" in steps else []
        if merging := next((name for name in behind_mix if name.endswith("_duplicates")), None):
            raise ValueError(f'but "{merging}" stands behind "mix" and would take out what it repeats; put it before')
        return steps


def step_names() -> list[str]:
    """The names of all steps, in the order of the default pipeline: the tables of `[curate]`."""
    return [
        name
        for name, field in CurateSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    ]
