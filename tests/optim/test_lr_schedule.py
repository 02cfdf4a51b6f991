"""Learning rates at the steps that matter."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage import config
from tutelage.builders.sampler import questions_of_length, sampler_for
from tutelage.optim.lr_schedule import LRSchedule, warmup_steps


@pytest.mark.parametrize(
    ("kind", "middle", "end"), [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)]
)
def test_rates(kind: Any, middle: float, end: float) -> None:
    schedule = LRSchedule(kind=kind, peak=2e-4, steps=110, warmup_steps=10, min_lr_ratio=0.1)

    assert schedule.rate(0) == pytest.approx(2e-5)
    assert schedule.rate(4) == pytest.approx(1e-4)
    assert schedule.rate(9) == pytest.approx(2e-4)
    assert schedule.rate(10) == pytest.approx(2e-4)
    assert schedule.rate(60) == pytest.approx(2e-4 * middle)
    assert schedule.rate(110) == pytest.approx(2e-4 * end), "after the last step, 109"


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("ratio", [0.0, 0.1])
@pytest.mark.parametrize(("steps", "warm"), [(1, 0), (2, 0), (2, 1), (7, 3), (100, 0), (100, 3), (5, 4)])
def test_r18_the_fall_is_that_of_transformers(kind: Any, ratio: float, steps: int, warm: int) -> None:
    """Its warm-up begins with a rate of zero, at which a step teaches nothing; ours is one step ahead of it."""
    torch = pytest.importorskip("torch", reason="its schedulers are the witness, of the extra train")
    from transformers import get_scheduler

    if ratio > 0 and kind == "linear":
        pytest.skip("transformers has no linear schedule with a least rate")
    names = {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    more = {"min_lr": ratio * 2e-4} if kind == "cosine" else {}
    witness = get_scheduler(names[kind], optimizer, warm, steps, scheduler_specific_kwargs=more)
    theirs = []
    for _ in range(steps + 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        witness.step()
    ours = LRSchedule(kind=kind, peak=2e-4, steps=steps, warmup_steps=warm, min_lr_ratio=ratio)

    rates = [ours.rate(step) for step in range(steps)]

    assert rates[:warm] == pytest.approx(theirs[1 : warm + 1], rel=1e-12)
    assert rates[warm:] == pytest.approx(theirs[warm:steps], rel=1e-12)
    assert all(rate > 0 for rate in rates), "every step teaches"


@pytest.mark.parametrize(
    ("warm", "most", "expected"),
    [(100, None, "climbs to"), (2, None, "climbs to"), (None, 50, "it is a bound"), (1, 2, "")],
)
def test_r25_a_run_too_short_for_its_settings_is_questioned(warm: int | None, most: int | None, expected: str) -> None:
    asked = {"warmup_steps": warm, "max_steps": most}
    train = {"batch_size": 4, "epochs": 1.0} | {name: value for name, value in asked.items() if value is not None}
    settings = config.Settings.model_validate({"model": {"name": "m"}, "data": {"train": ["d"]}, "train": train})

    found = questions_of_length(settings, sampler_for(settings, examples=8, sources=()))

    assert len(found) == bool(expected)
    assert all(expected in one for one in found)


def test_cosine_is_above_the_line_first_and_below_it_later() -> None:
    cosine = LRSchedule(kind="cosine", peak=1.0, steps=100, warmup_steps=0)
    linear = LRSchedule(kind="linear", peak=1.0, steps=100, warmup_steps=0)

    assert cosine.rate(25) == pytest.approx(0.8535533905932737)
    assert cosine.rate(25) > linear.rate(25)
    assert cosine.rate(75) < linear.rate(75)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@given(steps=st.integers(1, 60), share=st.floats(0, 0.99), ratio=st.floats(0, 1))
def test_rates_never_leave_their_range(kind: Any, steps: int, share: float, ratio: float) -> None:
    warm = warmup_steps(steps=steps, share=share, exact=None)
    schedule = LRSchedule(kind=kind, peak=1.0, steps=steps, warmup_steps=warm, min_lr_ratio=ratio)
    rates = [schedule.rate(step) for step in range(steps)]

    assert all(0.0 <= rate <= 1.0 + 1e-12 for rate in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[warm:], rates[warm + 1 :], strict=False))
    if warm < steps and kind != "constant":
        assert schedule.rate(steps) == pytest.approx(ratio)
    if warm > 0:
        assert rates[warm - 1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("steps", "share", "exact", "expected"),
    [(100, 0.03, None, 3), (10, 0.03, None, 1), (10, 0.0, None, 0), (100, 0.5, 7, 7), (5, 0.0, 50, 5), (5, 0.5, 0, 0)],
)
def test_warmup_steps(steps: int, share: float, exact: int | None, expected: int) -> None:
    assert warmup_steps(steps=steps, share=share, exact=exact) == expected


def test_limas_decay() -> None:
    """Zhou et al. 2023, section 3: no warm-up, 1e-5 falling linearly to 1e-6."""
    settings = config.load(Path(__file__).parents[2] / "recipes" / "lima.toml").train
    assert settings.learning_rate is not None
    warm = warmup_steps(steps=1000, share=settings.warmup_ratio, exact=settings.warmup_steps)
    schedule = LRSchedule(settings.lr_scheduler, settings.learning_rate, 1000, warm, settings.min_lr_ratio)

    rates = [schedule.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert schedule.rate(1000) == pytest.approx(1e-6)
    falls = [earlier - later for earlier, later in itertools.pairwise(rates)]
    assert falls == pytest.approx([9e-9] * 999, rel=1e-6)
