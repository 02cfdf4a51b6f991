from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from tests.support.short_plans import LONG_ROWS
from tutelage.plan import plan as plan_module
from tutelage.plan.console import explanation, plan_screen
from tutelage.plan.devices import Device
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.plan import DataVolume, Plan, make_plan
from tutelage.plan.workload import METHODS, single_document

AMOUNT = DataVolume(examples=100, tokens=25_600, trained_tokens=9_000, steps=50, step_tokens=512.0)


@pytest.fixture(scope="module", autouse=True)
def short_long_rows() -> Iterator[None]:
    """Fewer tokens than `LONG_ROWS` has: counting those in bf16 takes longer than all the rest."""
    assert plan_module.LONG_ROWS == (8192,)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_module, "LONG_ROWS", LONG_ROWS)
        yield


@pytest.fixture(scope="module")
def plan(small: ModelShape, device: Callable[[float], Device]) -> Plan:
    return make_plan(small, single_document("full", "bf16", 256), device(1e9), data_volume=AMOUNT, probe=False)


def printed(made: object) -> str:
    out = Console(file=io.StringIO(), width=80)
    out.print(made)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_everything_that_is_said_is_also_there_for_programs(plan: Plan):
    found = json.loads(json.dumps(plan.as_dict()))
    assert set(found["methods"]) == set(METHODS)
    assert found["chosen"]["peak_bytes"] == plan.chosen.plain.peak_bytes
    assert found["methods"]["full"]["plain"]["figures"][0]["name"] == "weights"
    assert found["pace"] == "no probe asked for"
    assert found["run_seconds"] is None
    assert found["amount"]["steps"] == 50
    assert set(found["gpus"]["H100 SXM"]["verdict"].values()) == {"fits"}
    assert found["long_documents"]["512"]["without_bytes"] > found["long_documents"]["512"]["with_bytes"]


def test_the_time_of_a_run_is_that_of_its_rows_and_steps(plan: Plan):
    pace = plan.gpu_paces["L40S"]
    expected = 50 * 2 * pace.row_seconds + 50 * pace.optimizer_seconds
    assert plan.run_seconds(pace) == pytest.approx(expected)


def test_the_screen_fits_80_columns_and_shows_each_method_and_gpu(plan: Plan):
    text = printed(plan_screen(plan))
    assert "…" not in text
    for word in (*METHODS, "H200 SXM, 141 GB", "RTX 4060, 8 GB", "rule of thumb", "18 bytes", "25,600 tokens an epoch"):
        assert word in text
    assert "What would make it fit" not in text


def test_what_does_not_fit_is_followed_by_ways(small: ModelShape, device: Callable[[float], Device]):
    workload = single_document("full", "bf16", 256)
    tight = make_plan(small, workload, device(1e6), probe=False)
    text = printed(plan_screen(tight))
    assert "What would make it fit" in text
    assert "activation checkpointing" in text
    assert tight.alternatives[0].setting == "train.activation_checkpointing=on"


def test_the_explanation_has_a_formula_and_a_source_for_each_figure(plan: Plan):
    text = " ".join(printed(explanation(plan)).replace("│", " ").split())
    for figure in plan.chosen.plain.figures:
        assert figure.formula.split(" ")[0] in text
    assert "Micikevicius et al. 2018" in text
    assert "Loshchilov and Hutter 2019" in text
