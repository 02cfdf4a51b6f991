"""The gate trips by what was measured, and says whether the items bear it out."""

from __future__ import annotations

import pytest

from tutelage.errors import ConfigError
from tutelage.evaluate.gate import forgetting_gate
from tutelage.evaluate.uncertainty import uncertainty_of


def outcomes(*, broken: int, fixed: int, right: int, wrong: int) -> tuple[dict[str, list[bool]], ...]:
    """Items before and after: so many went from right to wrong, the other way, or stayed."""
    before = [True] * broken + [False] * fixed + [True] * right + [False] * wrong
    after = [False] * broken + [True] * fixed + [True] * right + [False] * wrong
    return {"general": before}, {"general": after}


@pytest.mark.parametrize(
    ("broken", "fixed", "tripped_by", "says"),
    [
        (0, 0, None, "so is all of"),
        (9, 4, None, "does not rule out more"),
        (0, 20, None, "lost -10.0 points"),
        (14, 2, "point", "is not all"),
        (60, 1, "bound", "all of the 95% interval"),
    ],
)
def test_it_trips_by_the_point_and_names_the_bound(broken: int, fixed: int, tripped_by: str | None, says: str) -> None:
    before, after = outcomes(broken=broken, fixed=fixed, right=200 - broken - fixed - 50, wrong=50)
    gate = forgetting_gate(uncertainty_of(before, after), 0.05)
    assert gate.lost == pytest.approx((broken - fixed) / 200)
    assert gate.least <= gate.lost <= gate.most
    assert gate.tripped_by == tripped_by
    assert says in gate.sentence
    assert gate.sentence.startswith("Within" if tripped_by is None else "Forgot too much")


def test_a_fall_of_the_limit_itself_is_within_it() -> None:
    before, after = outcomes(broken=1, fixed=0, right=19, wrong=0)
    assert forgetting_gate(uncertainty_of(before, after), 0.05).tripped_by is None
    assert forgetting_gate(uncertainty_of(before, after), 0.049).tripped_by == "point"


def test_what_was_not_measured_trips_nothing_silently() -> None:
    _, after = outcomes(broken=0, fixed=1, right=3, wrong=4)
    for uncertainty in (None, uncertainty_of({}, after), uncertainty_of({}, {})):
        with pytest.raises(ConfigError, match="how much was forgotten"):
            forgetting_gate(uncertainty, 0.05)
