"""Which architecture of llama.cpp a model is, and what of it llama.cpp would compute otherwise."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from tutelage.errors import ConfigError

SLIDING = "sliding_attention"
SAFETENSORS_STAY = "serve the Hugging Face folder instead (tutelage export RUN --to hf)"


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of llama.cpp; the fields are those of `families.toml`."""

    model_type: str
    architecture: str
    activations: tuple[str, ...]
    rope: tuple[str, ...]
    permuted: tuple[str, ...] = ()
    norm_offset: float = 0.0
    sliding: int = 0
    tied_only: bool = False
    attention_scale: str | None = None


@cache
def families() -> Mapping[str, Family]:
    """All that can be written, by `model_type`."""
    table: dict[str, dict[str, Any]] = tomllib.loads(
        files("tutelage.export.gguf").joinpath("families.toml").read_text(encoding="utf-8")
    )
    return {
        model_type: Family(
            model_type=model_type,
            architecture=facts["architecture"],
            activations=tuple(facts["activations"]),
            rope=tuple(facts["rope"]),
            permuted=tuple(facts.get("permuted", ())),
            norm_offset=facts.get("norm_offset", 0.0),
            sliding=facts.get("sliding", 0),
            tied_only=facts.get("tied_only", False),
            attention_scale=facts.get("attention_scale"),
        )
        for model_type, facts in table.items()
    }


def family_of(config: Any, where: str) -> Family:
    """The family of a model, whose every setting llama.cpp computes as transformers does.

    Args:
        config: as transformers reads it.
        where: its folder, for errors.

    Raises:
        ConfigError: llama.cpp has no such architecture here, or would compute something else than was trained.
    """
    model_type = str(config.model_type)
    family = families().get(model_type)
    if family is None:
        nearest = get_close_matches(model_type, families(), n=1)
        raise ConfigError(
            f"A model of type {model_type!r} cannot be written as GGUF yet",
            where=where,
            found=f"model_type {model_type!r}",
            expected=f"one of: {', '.join(families())}" + (f" (nearest: {nearest[0]})" if nearest else ""),
            fix=SAFETENSORS_STAY,
        )
    for problem in (_activation(config, family), _attention_scale(config, family), _rope(config, family)):
        if problem is not None:
            raise ConfigError(
                "llama.cpp would not compute this model as it was trained",
                where=where,
                found=problem[0],
                expected=problem[1],
                fix=SAFETENSORS_STAY,
            )
    sliding_period(config, family, where)
    return family


def rope_parameters(config: Any) -> dict[str, Any]:
    """The rotation of layers that see all: its base and scaling."""
    parameters = dict(config.rope_parameters or {})
    return dict(parameters.get("full_attention", parameters))


def sliding_period(config: Any, family: Family, where: str) -> int:
    """Each n-th layer sees all and the others a window; 0 where llama.cpp computes no windows for this family.

    Raises:
        ConfigError: the layers of this model follow no such rule.
    """
    layers: Sequence[str] = getattr(config, "layer_types", None) or ()
    if not family.sliding:
        return 0
    windows = [kind == SLIDING for kind in layers]
    periods: list[int] = [family.sliding, *range(2, len(windows) + 1)]
    for period in periods:
        if windows == [index % period < period - 1 for index in range(len(windows))]:
            return period
    raise ConfigError(
        "llama.cpp would not compute this model as it was trained",
        where=where,
        found=f"layers with windows at {[index for index, window in enumerate(windows) if window]}",
        expected="every n-th layer to see all, and the others a window",
        fix=SAFETENSORS_STAY,
    )


def notes_of(config: Any, family: Family) -> list[str]:
    """What llama.cpp computes otherwise only beyond a length that is named."""
    notes = []
    original = rope_parameters(config).get("original_max_position_embeddings")
    if rope_parameters(config).get("rope_type") in ("longrope", "su"):
        notes.append(
            f"llama.cpp always takes the long RoPE factors where its context is over {original} tokens; trained "
            "were the short ones for prompts below: serve with --ctx-size up to that where prompts are short"
        )
    window = getattr(config, "sliding_window", None)
    in_use = getattr(config, "use_sliding_window", True)
    if family.sliding or not window or not in_use or window >= config.max_position_embeddings:
        return notes
    return [
        *notes,
        f"llama.cpp computes no sliding window for {family.architecture}: prompts over {window} tokens are attended to "
        "in full, which was not trained",
    ]


def head_width(config: Any) -> int:
    """Channels of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _activation(config: Any, family: Family) -> tuple[str, str] | None:
    name = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if name in family.activations:
        return None
    return f"the activation {name!r}", f"one of: {', '.join(family.activations)}"


def _attention_scale(config: Any, family: Family) -> tuple[str, str] | None:
    """llama.cpp scales by the width of a head, whatever the settings say.

    It has another rule for the two 27-billion models, which it knows by their number of layers: there by the hidden
    width over the heads.
    """
    if family.attention_scale is None:
        return None
    given = getattr(config, family.attention_scale)
    large = {"gemma2": 46, "gemma3": 62}.get(family.architecture) == config.num_hidden_layers
    taken = config.hidden_size // config.num_attention_heads if large else head_width(config)
    if given == taken:
        return None
    return f"{family.attention_scale} = {given}", f"{taken}, which llama.cpp takes itself"


def _rope(config: Any, family: Family) -> tuple[str, str] | None:
    kind = str(rope_parameters(config).get("rope_type") or "default")
    if kind == "su":  # an early name of it
        kind = "longrope"
    if kind in family.rope:
        return None
    return f"RoPE scaling of kind {kind!r}", f"one of: {', '.join(family.rope)}"
