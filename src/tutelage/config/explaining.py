"""Words for people: what each field means, and which values are outside their usual range."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tutelage.config.naming import did_you_mean, fields
from tutelage.config.settings import READS, Settings
from tutelage.errors import ConfigError

USUAL_LEARNING_RATES = {"full": (1e-5, 5e-5), "lora": (1e-4, 5e-4), "qlora": (1e-4, 5e-4), "prompt": (3e-3, 3e-1)}
"""Source: LIMA (Zhou et al. 2023, section 3) and Alpaca; QLoRA (Dettmers et al. 2023, table 9) and common practice;
PEFT's guides to prompt tuning, and Lester et al. 2021, section 3, for the upper end."""
METHOD_WORDS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA", "prompt": "prompt tuning"}


@dataclass(frozen=True, slots=True)
class FieldHelp:
    """What a person needs to know about one field, as text.

    Attributes:
        path: dotted name, such as `train.learning_rate`.
        type: the values it takes.
        default: the default as TOML would write it; "required", or "none" where leaving it out means something.
        description: one sentence.
        usual: the usual range in words; None where there is none.
        source: where the default or the range comes from.
    """

    path: str
    type: str
    default: str
    description: str
    usual: str | None
    source: str


def explain(name: str | None = None) -> list[FieldHelp]:
    """Help for every field in recipe order, or for those that `name` names.

    Args:
        name: a dotted path, a section, or a field's own name in any section; None for all.

    Raises:
        ConfigError: nothing has that name; the nearest right one is in the error.
    """
    all_fields = [_help(path, field) for path, field in fields()]
    if name is None:
        return all_fields
    chosen = [field_help for field_help in all_fields if field_help.path == name]
    chosen = chosen or [field_help for field_help in all_fields if field_help.path.startswith(f"{name}.")]
    chosen = chosen or [field_help for field_help in all_fields if field_help.path.endswith(f".{name}")]
    if not chosen:
        raise ConfigError(
            f"There is no field or section '{name}'",
            found=name,
            expected="a name such as train.learning_rate, train or learning_rate",
            fix=did_you_mean(name),
        )
    return chosen


def questions(settings: Settings) -> list[str]:
    """One line for each value outside its usual range, or without effect; such values are questioned, not refused."""
    lines = []
    method = METHOD_WORDS[settings.model.method]
    unread = {"lora", "qlora", "prompt"} - set(READS[settings.model.method])
    for path, field in fields():
        value = _value_at(settings, path)
        usual = _usual_range(settings, path, field)
        if usual is None or value is None or path.partition(".")[0] in unread:
            continue
        low, high = usual
        if low <= value <= high:
            continue
        side = "below" if value < low else "above"
        subject = f" for {method}" if path == "train.learning_rate" else ""
        lines.append(
            f"{path} = {value!r} is {side} the usual {low!r} to {high!r}{subject} (source: {_extra(field)['source']})"
        )
    return lines + _without_effect(settings)


def _without_effect(settings: Settings) -> list[str]:
    lines = []
    train = settings.train
    if train.evaluate_every is not None and not settings.holds_out:
        lines.append(f"train.evaluate_every = {train.evaluate_every} has no effect: no rows are held out")
    if train.lr_scheduler == "constant" and train.min_lr_ratio > 0:
        lines.append(f'train.min_lr_ratio = {train.min_lr_ratio!r} has no effect: train.lr_scheduler = "constant"')
    return lines


def _usual_range(settings: Settings, path: str, field: FieldInfo) -> tuple[float, float] | None:
    if path == "train.learning_rate":
        return USUAL_LEARNING_RATES[settings.model.method]
    if path == "lora.alpha":
        return None if settings.lora.rslora else (settings.lora.rank, 2 * settings.lora.rank)
    usual = _extra(field).get("usual")
    return (usual[0], usual[1]) if isinstance(usual, list) else None


def _value_at(settings: Settings, path: str) -> Any:
    if path == "train.learning_rate":
        return settings.peak_learning_rate
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _help(path: str, field: FieldInfo) -> FieldHelp:
    extra = _extra(field)
    usual = extra.get("usual")
    if isinstance(usual, list):
        usual = f"{usual[0]!r} to {usual[1]!r}"
    return FieldHelp(
        path=path,
        type=_type_text(field.annotation),
        default="required" if field.is_required() else _default_text(field.default),
        description=field.description or "",
        usual=usual,
        source=extra["source"],
    )


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict), "every field carries its source"
    return field.json_schema_extra


def _default_text(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else repr(default)


def _type_text(annotation: Any) -> str:
    """A type as a recipe's author would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in arguments)
    if origin in (types.UnionType, Union):
        return " | ".join(_type_text(argument) for argument in arguments if argument is not types.NoneType)
    if origin is list:
        return f"list of {_type_text(arguments[0])}"
    if origin is dict:
        return f"table of {_type_text(arguments[1])}"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}
    return words[annotation]
