"""What the dial says in sentences."""

from __future__ import annotations

import pytest

from tutelage.report.dial import Dial, DialPoint, Estimate, ForgettingKey, Knee, value_text

POINT = DialPoint(0.75, Estimate(0.5, 0.4, 0.6), Estimate(0.012, -0.005, 0.043))
KNEE = Knee(0.5, 0.857, 0.319, Estimate(0.538, 0.344, 0.732))


def said(
    *,
    knee: Knee | None = None,
    within: DialPoint | None = None,
    forgetting: ForgettingKey = "general",
    beyond: bool = False,
) -> str:
    points = (POINT, *([DialPoint(1.5, None, None)] * beyond))
    dial = Dial("exact_match", forgetting, points, knee, "it is noise", 0.03, within)
    return " ".join(dial.sentences).replace("\u00a0", " ").replace("\u2212", "-")


def test_the_knee_with_its_interval() -> None:
    assert said(knee=KNEE) == (
        "Knee at 0.5: 85.7 % of the gain for 31.9 % of what tuned forgot, so 53.8 points (95 %: +34.4 to +73.2) above "
        "the straight line from base to tuned."
    )
    assert "near 0.5" in said(knee=KNEE, forgetting="kl_task"), "a divergence bends by itself"
    assert said() == "No knee shown: it is noise."


def test_the_margin_says_what_is_not_ruled_out() -> None:
    assert said(within=POINT).endswith(
        "Largest value that lost at most 3.0 points of the general set: 0.75 (lost 1.2; these items do not rule out "
        "4.3 at 95 %)."
    )
    sure = DialPoint(1.0, None, Estimate(-0.02, -0.05, 0.01))
    assert said(within=sure).endswith("general set: 1 (lost -2.0, at most 1.0 at 95 %).")
    none = DialPoint(0.0, Estimate(0.0), Estimate(0.0))
    assert said(within=none).endswith("No value above 0 lost at most 3.0 points of the general set.")


def test_values_beyond_1_are_named() -> None:
    assert said(beyond=True).endswith("Above 1 the change is exaggerated (1.5): no knee is looked for there.")


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1.0, "1"), (0.25, "0.25"), (1 / 3, "0.333333333333")])
def test_values_are_written_as_people_do(value: float, text: str) -> None:
    assert value_text(value) == text
