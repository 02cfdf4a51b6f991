from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.html.run_charts import QUANTITIES, loss_figure, quantity_figure, running_mean, thin
from tutelage.runs.curves import Evaluation, Step

MAYBE = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(MAYBE, max_size=300), st.integers(4, 60))
def test_thinning_keeps_true_points_in_order_and_the_extremes(values, most):
    points = [(float(index), value) for index, value in enumerate(values)]
    kept = thin(points, most)
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    assert all(points[int(x)] == (x, y) or y != y for x, y in kept)
    assert len(kept) <= max(len(values) if len(values) <= most else 0, 2 * most + 4)
    finite = [y for _, y in points if y is not None and math.isfinite(y) and abs(y) < 1e100]
    if finite:
        shown = [y for _, y in kept if y is not None]
        assert min(finite) in shown
        assert max(finite) in shown


def test_running_mean_counts_each_step_by_its_trained_tokens():
    steps = [Step(1, loss=1.0, trained_tokens=300), Step(2, loss=4.0, trained_tokens=100), Step(3, loss=math.nan)]
    assert running_mean(steps[:2], 3)[0][1] == pytest.approx((300 * 1 + 100 * 4) / 400)
    # One step without a count: each counts alike, and the one without a finite loss not at all.
    assert running_mean(steps, 3)[1][1] == pytest.approx(2.5)
    assert math.isnan(running_mean(steps[2:], 1)[0][1])


def test_the_best_step_of_the_run_is_marked_on_the_heldout_line():
    steps = [Step(step, loss=1 / step) for step in range(1, 31)]
    evaluations = [Evaluation(10, 0.5), Evaluation(20, 0.4), Evaluation(30, 0.3)]
    assert "best: step 20" in loss_figure(steps, evaluations, 20).drawing
    assert "lowest: step 30" in loss_figure(steps, evaluations, None).drawing


def test_a_loss_that_is_no_number_is_named_and_the_rest_is_drawn():
    steps = [Step(step, loss=math.nan if step == 7 else 1.0) for step in range(1, 11)]
    figure = loss_figure(steps, [Evaluation(5, math.inf)], None)
    assert "No finite loss at step 7 (marked ×)." in figure.caption
    assert "No finite held-out loss at step 5" in figure.caption
    assert any("loss NaN" in text for _, text in figure.readings)


@pytest.mark.parametrize("losses", [[], [math.nan], [None, math.inf]])
def test_nothing_finite_gives_no_chart(losses):
    steps = [Step(step, loss=loss) for step, loss in enumerate(losses, start=1)]
    assert loss_figure(steps, [], None) is None
    assert all(quantity_figure(quantity, steps) is None for quantity in QUANTITIES)


def test_one_step_gives_one_dot():
    figure = loss_figure([Step(1, loss=2.5)], [], None)
    root = ElementTree.fromstring(figure.drawing)
    assert len([circle for circle in root.iter("circle") if circle.find("title") is not None]) == 1
    assert figure.readings == ((0.5, "step 1: loss 2.500"),)


def test_readings_lie_along_the_axis_and_say_all_lines():
    steps = [Step(step, loss=2.0, trained_tokens=10) for step in range(1, 31)]
    readings = loss_figure(steps, [Evaluation(0, 3.0), Evaluation(30, 1.0)], 30).readings
    assert [fraction for fraction, _ in readings] == sorted(fraction for fraction, _ in readings)
    assert readings[0] == (0.0, "step 0: held-out loss 3.000")
    assert readings[-1] == (1.0, "step 30: loss 2.000, mean of 3 steps 2.000, held-out loss 1.000")


def test_a_long_run_is_thinned_and_says_so():
    figure = loss_figure([Step(step, loss=1 / step) for step in range(1, 5001)], [], None)
    assert "Of 5,000 steps" in figure.caption
    assert len(figure.drawing) < 60_000


def test_peak_memory_has_its_unit_on_the_axis():
    memory = next(quantity for quantity in QUANTITIES if quantity.key == "peak-memory")
    figure = quantity_figure(memory, [Step(1, peak_bytes=3 * 2**30), Step(2, peak_bytes=4 * 2**30)])
    texts = [text.text for text in ElementTree.fromstring(figure.drawing).iter("text")]
    assert "GiB" in texts
    assert "4" in texts
