"""A recipe -> what is compared: the recipe without any remedy against forgetting, and with each of them alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.config.settings import DEFAULT_LEARNING_RATES, Settings
from tutelage.model.locate import model_folder

RATIOS = (0.01, 0.05, 0.1, 0.2)
NONE, AGAIN = "none", "none, again"
PULL = 0.02
"""Of the way back to the base at each step at the peak rate, as `tutelage train --guard` takes."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One row of the table; `folder` is the name of its run."""

    name: str
    folder: str
    overrides: tuple[str, ...]


def plain(recipe: str, general: str, probes: Sequence[str], overrides: Sequence[str]) -> Settings:
    """The recipe without general data in what it trains on, and asked the probes.

    Args:
        recipe: its path.
        general: the file of general data, which is taken out of data.train.
        probes: what shows what was forgotten.
        overrides: of the recipe, such as train.max_steps=2.
    """
    settings = config.load(recipe, overrides)
    train = [source for source in settings.data.train if source != general]
    off = ("train.l2_to_base=", "train.kl_to_base=", "train.early_stopping_patience=", "model.freeze=")
    data = (f"data.train={json.dumps(train)}", "data.replay=", "data.self_replay=", "data.replay_ratio=")
    asked = f"evaluate.general={json.dumps(list(probes))}"
    return config.load(recipe, [*overrides, *data, *off, "train.loss=cross_entropy", asked])


def remedies(settings: Settings, general: str) -> Iterator[Remedy]:
    """All that are compared, the plain recipe first and, to see what the clock alone does, last again.

    Args:
        settings: of `plain`.
        general: the file of general data.
    """
    rate = settings.peak_learning_rate
    replay = (f"data.replay={json.dumps([general])}",)
    yield Remedy(NONE, "none", ())
    for ratio in RATIOS:
        yield Remedy(f"replay, {ratio:.0%}", f"replay-{ratio * 100:g}", (*replay, f"data.replay_ratio={ratio}"))
    own = (f"data.self_replay={json.dumps([general])}", "data.replay_ratio=0.05")
    yield Remedy("self-replay, 5%", "self-replay", own)
    yield Remedy("half the rate", "half-rate", (f"train.learning_rate={rate / 2!r}",))
    yield Remedy("a quarter of the rate", "quarter-rate", (f"train.learning_rate={rate / 4!r}",))
    if settings.data.validation or settings.data.validation_ratio > 0:
        yield Remedy("early stopping", "early-stopping", ("train.early_stopping_patience=2",))
    if settings.model.method != "lora":
        lora = ("model.method=lora", f"train.learning_rate={DEFAULT_LEARNING_RATES['lora']}")
        yield Remedy(f"LoRA, rate {DEFAULT_LEARNING_RATES['lora']:g}", "lora", lora)
    if settings.model.method == "full":
        frozen = json.dumps([f"layers.{layer}.*" for layer in range(layers_of(settings) // 2)])
        yield Remedy("first half of the layers frozen", "frozen-half", (f"model.freeze={frozen}",))
    yield Remedy("l2_to_base", "l2-to-base", (f"train.l2_to_base={PULL / rate:g}",))
    for loss in ("talr", "eaft", "dft"):
        yield Remedy(loss, loss, (f"train.loss={loss}",))
    kl = (*replay, "data.replay_ratio=0.05", "train.kl_to_base=1.0")
    yield Remedy("replay, 5%, with kl_to_base", "kl-to-base", kl)
    yield Remedy(AGAIN, "none-again", ())


def layers_of(settings: Settings) -> int:
    """How many the model's configuration names."""
    file = Path(model_folder(settings.model.name)) / "config.json"
    count: int = json.loads(file.read_text(encoding="utf-8"))["num_hidden_layers"]
    return count
