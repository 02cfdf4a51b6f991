"""Strict typed settings: a sentence, a source and, where there is one, a usual range for every field.

`load` reads a TOML recipe and reports all its problems together; `dump` writes the resolved settings back; `explain`
describes fields for people; `questions` names values outside their usual range. Nothing here imports torch.
"""

from tutelage.config.curation import CurateSettings
from tutelage.config.data import DataSettings
from tutelage.config.explaining import FieldHelp, explain, questions
from tutelage.config.method import LoraSettings, PromptSettings, QloraSettings
from tutelage.config.reading import NO_MODEL, dump, from_mapping, is_recipe, load, load_curation
from tutelage.config.sections import EvaluateSettings, ModelSettings, PackSettings, RenderSettings
from tutelage.config.settings import Settings
from tutelage.config.synthesis import SynthesizeSettings
from tutelage.config.training import TrainSettings

__all__ = [
    "NO_MODEL",
    "CurateSettings",
    "DataSettings",
    "EvaluateSettings",
    "FieldHelp",
    "LoraSettings",
    "ModelSettings",
    "PackSettings",
    "PromptSettings",
    "QloraSettings",
    "RenderSettings",
    "Settings",
    "SynthesizeSettings",
    "TrainSettings",
    "dump",
    "explain",
    "from_mapping",
    "is_recipe",
    "load",
    "load_curation",
    "questions",
]
