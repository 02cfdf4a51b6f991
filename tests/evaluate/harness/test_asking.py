"""What lm-eval returns in our terms, and what is missing for its tasks; lm-eval itself is not needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.evaluate.harness.test_language_model import renderer_in
from tutelage.errors import ConfigError, DependencyError, SourceNotFoundError
from tutelage.evaluate.harness.asking import harness_result, with_tasks
from tutelage.evaluate.harness.tasks import HarnessTasks, load_tasks
from tutelage.evaluate.suite import EvalResult, EvalSuite, Metrics
from tutelage.evaluate.uncertainty import of_same_tasks, uncertainty_of
from tutelage.model.architecture import architecture_of


def sample(doc: int, kind: str = "none", **metrics: Any) -> dict[str, Any]:
    hashes = {name: f"{name}{doc}" for name in ("doc_hash", "prompt_hash", "target_hash")}
    return {"doc_id": doc, "filter": kind, "metrics": list(metrics), **hashes, **metrics}


def returned(*samples: dict[str, Any], task: str = "own", **better: bool) -> dict[str, Any]:
    results = {"acc,none": 0.5, "f1,none": 0.4, "perplexity,none": 21.5, "toxic,none": 0.25, "gold,none": "N/A"}
    return {"samples": {task: list(samples)}, "results": {task: results}, "higher_is_better": {task: better}}


def test_items_stand_in_their_order_and_each_filter_for_itself() -> None:
    found = harness_result(
        returned(
            sample(2, "strict", acc=1.0), sample(0, "strict", acc=0.0), sample(1, "strict", acc=1),
            sample(1, acc=0), sample(0, acc=1.0), sample(2, acc=True),
            acc=True,
        )
    )  # fmt: skip
    assert found.outcomes == {"lm_eval own acc (strict)": [False, True, True], "lm_eval own acc": [True, False, True]}
    assert not found.numbers


def test_only_numbers_from_0_to_1_of_which_more_is_better_are_shares() -> None:
    better = {"acc": True, "f1": True, "perplexity": False, "toxic": False}
    items = [sample(at, f1=0.5 * at, perplexity=(-3.0, 4), toxic=0.0, gold=(1, 0)) for at in range(3)]
    found = harness_result(returned(*items, **better))
    assert found.outcomes == {"lm_eval own f1": [0.0, 0.5, 1.0]}
    assert found.numbers == {"own perplexity": 21.5, "own toxic": 0.25}, "what has no figure is left out"


def test_items_that_changed_have_another_hash_and_are_not_paired() -> None:
    before = harness_result(returned(sample(0, acc=1), sample(1, acc=0), acc=True))
    other = harness_result(returned(sample(0, acc=1), sample(7, acc=0), acc=True))
    assert before.items_sha256 != other.items_sha256
    outcomes = {"general": [True], **before.outcomes}
    assert of_same_tasks(outcomes, before.items_sha256, before.items_sha256) == outcomes
    assert of_same_tasks(outcomes, before.items_sha256, other.items_sha256) == {"general": [True]}


def test_tasks_have_verdicts_of_their_own_family() -> None:
    before = {"general": [True] * 40, "lm_eval own acc": [True] * 40, "lm_eval own f1": [0.5, 1.0] * 20}
    after = {"general": [True] * 40, "lm_eval own acc": [False] * 30 + [True] * 10, "lm_eval own f1": [0.5, 1.0] * 20}
    found = uncertainty_of(before, after)
    change = found.lm_eval["own acc"].change
    assert change is not None
    assert (change.verdict, change.broken, change.fixed) == ("lost", 30, 0)
    assert found.lm_eval["own f1"].graded
    assert not found.lm_eval["own acc"].graded
    assert set(found.shares) == {"general"}
    assert found.families == "1 change, 2 metrics of lm-eval, each group by itself"


def test_without_the_package_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(DependencyError, match="not installed") as caught:
        load_tasks(["gsm8k"], log=print)
    assert caught.value.fix == "pip install 'tutelage[lm-eval]'"
    assert load_tasks([], log=print) is None, "nothing is needed where nothing is asked for"


class StandInTask:
    """A task as lm-eval has it."""

    def __init__(self, **config: Any) -> None:
        self.config, self.seed = {"num_fewshot": None, **config}, None

    def get_config(self, key: str) -> Any:
        return self.config.get(key)

    def set_config(self, key: str, value: Any) -> None:
        self.config[key] = value

    def set_fewshot_seed(self, seed: int) -> None:
        self.seed = seed


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package `lm_eval` of two names, whose tasks are what is put here."""
    tasks: dict[str, Any] = {"gsm8k": StandInTask(), "arc_easy": StandInTask(num_fewshot=5)}

    class TaskManager:
        def __init__(self, include_defaults: bool = True) -> None:
            self.all_tasks = sorted(tasks) if include_defaults else []

        def load(self, names: list[str]) -> dict[str, Any]:
            for name in names:
                if isinstance(tasks.get(name), Exception):
                    raise tasks[name]
            return {"tasks": {name: tasks.get(name, StandInTask()) for name in names}, "groups": {}}

    package, module, evaluator = ModuleType("lm_eval"), ModuleType("lm_eval.tasks"), ModuleType("lm_eval.evaluator")
    module.TaskManager = TaskManager  # type: ignore[attr-defined]  # a module of our own making
    asked = SimpleNamespace(args=("Is the shop old?", " yes"))

    def evaluate(lm: Any, **how: Any) -> dict[str, Any]:
        if how["apply_chat_template"]:
            asked.args = (lm.apply_chat_template([{"role": "user", "content": "Is the shop old?"}]), " yes")
        (answer,) = lm.loglikelihood([asked])
        return returned(sample(0, acc=float(answer[1])), sample(1, perplexity=answer), acc=True)

    evaluator.evaluate = evaluate  # type: ignore[attr-defined]  # as above
    for name, one in (("lm_eval", package), ("lm_eval.tasks", module), ("lm_eval.evaluator", evaluator)):
        monkeypatch.setitem(sys.modules, name, one)
    return tasks


def test_tasks_are_made_ready_as_the_harness_does(stand_in: dict[str, Any]) -> None:
    found = load_tasks(["gsm8k", "arc_easy"], items=3, log=print)
    assert found is not None
    assert found.items == 3
    tasks = found.loaded["tasks"]
    assert [tasks[name].config["num_fewshot"] for name in ("gsm8k", "arc_easy")] == [0, 5]
    assert tasks["gsm8k"].seed == 1234


def test_an_unknown_task_is_answered_with_the_nearest_one(stand_in: dict[str, Any]) -> None:
    with pytest.raises(SourceNotFoundError, match="no task 'gsm8'") as caught:
        load_tasks(["gsm8"], log=print)
    assert caught.value.fix == "did you mean 'gsm8k'?"
    with pytest.raises(SourceNotFoundError, match="no task"):
        load_tasks(["nowhere.yaml"], log=print)


def test_items_that_cannot_be_had_say_what_to_do(stand_in: dict[str, Any]) -> None:
    stand_in["gsm8k"] = ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")
    with pytest.raises(SourceNotFoundError, match="cannot be had") as caught:
        load_tasks(["gsm8k"], log=print)
    assert "run this once with a network" in str(caught.value)
    assert "openai/gsm8k" in str(caught.value)
    stand_in["gsm8k"] = KeyError("no such column")
    with pytest.raises(SourceNotFoundError, match="cannot be had") as caught:
        load_tasks(["gsm8k"], log=print)
    assert "lm-eval run --tasks" in str(caught.value)


def test_code_outside_of_a_sandbox_and_pictures_are_refused(stand_in: dict[str, Any]) -> None:
    stand_in["gsm8k"].UNSAFE_CODE = True
    with pytest.raises(ConfigError, match="cannot be asked") as caught:
        load_tasks(["gsm8k"], log=print)
    assert "sandbox" in str(caught.value)
    stand_in["arc_easy"].MULTIMODAL = True
    with pytest.raises(ConfigError, match="cannot be asked"):
        load_tasks(["arc_easy"], log=print)


@pytest.mark.parametrize("prompts", ["served", "plain"])
def test_tasks_stand_beside_what_else_was_measured(
    stand_in: dict[str, Any], tiny_model_folder: Path, prompts: Any
) -> None:
    model, renderer = AutoModelForCausalLM.from_pretrained(tiny_model_folder), renderer_in(tiny_model_folder)
    tasks = load_tasks(["gsm8k"], prompts=prompts, log=print)
    suite = EvalSuite((), (), (), max_new_tokens=4, batch_prompts=2, lm_eval=tasks)
    earlier = EvalResult(Metrics(general=0.5), (), (), outcomes={"general": [True, False]})
    architecture = architecture_of(model)
    found = with_tasks(earlier, model, renderer, suite, architecture, seed=0)
    assert found.measures.general == 0.5
    assert set(found.measures.lm_eval) == {"own acc"}
    assert found.measures.lm_eval_numbers == {"own perplexity": 21.5}
    assert set(found.outcomes) == {"general", "lm_eval own acc"}
    assert set(found.lm_eval_items) == {"own"}


def test_a_task_that_fails_costs_a_run_nothing_else(
    stand_in: dict[str, Any], tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("the task divides by zero")

    monkeypatch.setattr(sys.modules["lm_eval.evaluator"], "evaluate", broken)
    model, renderer = AutoModelForCausalLM.from_pretrained(tiny_model_folder), renderer_in(tiny_model_folder)
    suite = EvalSuite((), (), (), max_new_tokens=4, batch_prompts=2, lm_eval=HarnessTasks(("own",), {}))
    earlier = EvalResult(Metrics(general=0.5), (), ())
    architecture = architecture_of(model)
    found = with_tasks(earlier, model, renderer, suite, architecture, seed=0, tolerate_failures=True)
    assert found.failed == {"lm_eval": "the task divides by zero"}
    assert found.measures.general == 0.5
    with pytest.raises(RuntimeError, match="divides"):
        with_tasks(earlier, model, renderer, suite, architecture, seed=0)
