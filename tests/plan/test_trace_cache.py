from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.plan import fit, trace_cache
from tutelage.plan.fit import Traces
from tutelage.plan.model_shape import ModelShape, read_model_shape
from tutelage.plan.trace import Trace, trace
from tutelage.plan.trace_cache import trace_file
from tutelage.plan.workload import Workload

WORKLOAD = Workload("lora", "fp32", (24, 9), 20)


@pytest.fixture
def model_shape(tiny_model_folder: Path) -> ModelShape:
    return read_model_shape(str(tiny_model_folder), log=lambda _text: None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Workload]:
    """The workloads that were traced, in a cache with nothing in it."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    workloads: list[Workload] = []

    def noticed(model_shape: ModelShape, workload: Workload, **more: Any) -> Trace:
        workloads.append(workload)
        return trace(model_shape, workload, **more)

    monkeypatch.setattr(fit, "trace", noticed)
    return workloads


def test_what_was_traced_once_on_this_machine_is_read(model_shape: ModelShape, made: list[Workload]):
    first = Traces(model_shape).of(WORKLOAD)
    assert Traces(model_shape).of(WORKLOAD) == first == trace(model_shape, WORKLOAD)
    assert len(made) == 1


def test_whatever_a_trace_depends_on_makes_it_another(model_shape: ModelShape, monkeypatch: pytest.MonkeyPatch):
    wider = replace(model_shape, cut=model_shape.with_layers(1))
    files = {
        trace_file(model_shape, WORKLOAD, "cpu"),
        trace_file(model_shape, WORKLOAD, "cuda"),
        trace_file(model_shape, replace(WORKLOAD, document_tokens=(24, 10)), "cpu"),
        trace_file(wider, WORKLOAD, "cpu"),
        trace_file(replace(model_shape, layers=40), WORKLOAD, "cpu"),
    }
    monkeypatch.setattr(trace_cache, "_made_by", lambda: ["other code"])
    assert len(files | {trace_file(model_shape, WORKLOAD, "cpu")}) == 6


def test_code_that_came_with_a_model_is_traced_each_time(model_shape: ModelShape, made: list[Workload]):
    class Foreign(type(model_shape.cut)):  # type: ignore[misc] # the class of a model is known at run time only
        pass

    foreign = replace(model_shape, cut=model_shape.with_layers(2))
    foreign.cut.__class__ = Foreign
    assert trace_file(foreign, WORKLOAD, "cpu") is None
    for _ in range(2):
        Traces(foreign).of(WORKLOAD)
    assert len(made) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trained": [], "operations": 1}', b"\xff"])
def test_a_damaged_file_is_made_anew(model_shape: ModelShape, made: list[Workload], content: bytes):
    first = Traces(model_shape).of(WORKLOAD)
    file = trace_file(model_shape, WORKLOAD, "cpu")
    assert file is not None
    file.write_bytes(content)
    assert Traces(model_shape).of(WORKLOAD) == first
    assert len(made) == 2
    Traces(model_shape).of(WORKLOAD)
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(
    model_shape: ModelShape, made: list[Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    assert Traces(model_shape).of(WORKLOAD) == Traces(model_shape).of(WORKLOAD)
    assert len(made) == 2
