"""A recipe -> the candidates that `train --guard` trains: the recipe as it is, and remedies against forgetting."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage import config
from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import prepare, prepared_cache
from tutelage.builders.row_limit import held_to_positions
from tutelage.builders.sampler import epoch_tokens, sampler_for
from tutelage.config import Settings
from tutelage.config.reading import from_mapping
from tutelage.errors import ConfigError

WHERE = "--guard"
AS_IT_IS = "as-it-is"
REPLAY_RATIOS = (0.05, 0.2)
PATIENCE = 2
"""Measures without a better held-out loss before a run ends: the least that is usual."""
PULL = 0.02
"""The share of the way back to the base at each step, at the peak rate: with AdamW no weight gets further than 50 full
steps. Our choice: it is the strength of 100 of docs/train.md at the rate of 2e-4, whatever the rate."""
NEAR = 0.1
"""Prices that differ by less than this share of the recipe's own count as one, and the order is that of `_remedies`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is trained: a name, what it changes of the recipe, and the settings that come of it."""

    name: str
    overrides: tuple[str, ...]
    settings: Settings
    tokens: float = 0.0
    """That training will go through, counted on the prepared data."""
    data_sha256: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A remedy that this recipe cannot take, or has already, and why."""

    name: str
    why: str


def candidates_of(settings: Settings) -> tuple[list[Candidate], list[LeftOut]]:
    """Every candidate, not priced yet, and the remedies that are left out.

    Args:
        settings: of the recipe, resolved.
    """
    values = tomllib.loads(config.dump(settings))
    candidates = [Candidate(AS_IT_IS, (), settings)]
    left_out = []
    for name, overrides, missing in _remedies(settings):
        if missing:
            left_out.append(LeftOut(name, missing))
            continue
        try:
            changed = from_mapping(values, overrides, where=WHERE)
        except ConfigError as error:
            left_out.append(LeftOut(name, error.found or error.what))
            continue
        known = {config.dump(candidate.settings): candidate.name for candidate in candidates}
        if (same := known.get(config.dump(changed))) is not None:
            left_out.append(LeftOut(name, f"the same as {same}"))
        else:
            candidates.append(Candidate(name, overrides, changed))
    return candidates, left_out


def _remedies(settings: Settings) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Name, overrides, and what is missing for it; of equal price those come first that are known to help most."""
    data, train, rate = settings.data, settings.train, settings.peak_learning_rate
    for ratio in REPLAY_RATIOS:
        overrides = (
            f"data.replay_ratio={ratio}",
            *(("data.self_replay=", "data.self_replay_tokens=") * bool(data.self_replay)),
        )
        yield f"replay-{ratio * 100:g}", overrides, "" if data.replay else "data.replay names nothing"
    yield (
        "self-replay",
        (f"data.replay_ratio={REPLAY_RATIOS[0]}", "data.replay="),
        "" if data.self_replay else "data.self_replay names nothing",
    )
    has_kl = "" if train.kl_to_base is None else f"train.kl_to_base = {train.kl_to_base} is set"
    yield (
        "kl-to-base",
        (f"data.replay_ratio={REPLAY_RATIOS[0]}", "train.kl_to_base=1.0"),
        has_kl if data.replays else "nothing is named to replay",
    )
    for name, divisor in (("half-rate", 2), ("quarter-rate", 4)):
        yield name, (f"train.learning_rate={rate / divisor!r}",), ""
    for loss in ("talr", "eaft"):
        has_other = f'train.loss = "{train.loss}" is set' if train.loss not in ("cross_entropy", loss) else ""
        yield loss, (f"train.loss={loss}",), has_other
    has_pull = f"train.l2_to_base = {train.l2_to_base} is set" if train.l2_to_base is not None else ""
    yield "l2-to-base", (f"train.l2_to_base={PULL / rate:g}",), has_pull
    yield "early-stopping", (f"train.early_stopping_patience={PATIENCE}",), _no_early_stopping(settings)


def _no_early_stopping(settings: Settings) -> str:
    if settings.train.early_stopping_patience is not None:
        return f"train.early_stopping_patience = {settings.train.early_stopping_patience} is set"
    if not settings.holds_out:
        return "no rows are held out"
    return ""


def by_price(candidates: list[Candidate]) -> list[Candidate]:
    """The recipe as it is, then the others, cheaper ones first; about equal prices keep their order."""
    first, *others = candidates
    unit = max(NEAR * first.tokens, 1.0)
    return [first, *sorted(others, key=lambda candidate: int(candidate.tokens / unit + 1e-9))]


def priced(candidates: Sequence[Candidate]) -> list[Candidate]:
    """With the tokens that each training goes through, counted on data that is proven now, or was before.

    The base's own replies are made when a run begins; until then they count as so many tokens as the task's rows.

    Raises:
        TutelageError: the data or the tokenizer cannot be used.
    """
    by_data: dict[str, tuple[float, tuple[tuple[str, str], ...]]] = {}  # no remedy changes the length of training
    for candidate in candidates:
        if (key := candidate.settings.data.model_dump_json()) not in by_data:
            by_data[key] = _tokens(candidate.settings)
    return [
        replace(candidate, tokens=tokens, data_sha256=hashes)
        for candidate in candidates
        for tokens, hashes in [by_data[candidate.settings.data.model_dump_json()]]
    ]


def _tokens(settings: Settings) -> tuple[float, tuple[tuple[str, str], ...]]:
    asked = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"general": []})})
    folder = start_folder(settings.model, weights=False, log=_silent)
    fitting, positions = held_to_positions(asked, folder, log=_silent)
    prepared = prepare(fitting, folder, cache=prepared_cache(), log=_silent)
    if positions is not None:
        positions.require_room(asked, prepared)
    sampler = sampler_for(settings, examples=len(prepared.train), sources=prepared.sources)
    visits = sampler.visits_after(sampler.steps)
    tokens = epoch_tokens(prepared.train, prepared.sources) / sampler.epoch_visits * visits
    is_bounded = settings.train.max_steps is not None and sampler.steps >= settings.train.max_steps
    if settings.data.self_replay and not settings.data.replayed and not is_bounded:
        tokens /= 1 - settings.data.replay_ratio
    return float(tokens), tuple(sorted(prepared.data_sha256.items()))


def placed(candidate: Candidate, folder: Path, general: Path) -> Settings:
    """The settings of the candidate's run: in the guard's folder, asked the half that the choice is made by."""
    settings = candidate.settings
    evaluate = settings.evaluate.model_copy(update={"general": [str(general)], "before": True})
    return settings.model_copy(update={"folder": str(folder), "name": candidate.name, "evaluate": evaluate})


def _silent(_text: str) -> None:
    pass
