"""Tasks of our own through lm-eval itself, whose own `hf` model is the witness; and the command with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

from tests.cli.test_train import Tutelage, home, tutelage
from tests.evaluate.harness.test_language_model import harness_model
from tests.support.harness_tasks import QUESTIONS, write_tasks
from tutelage.errors import SourceNotFoundError
from tutelage.evaluate.harness.tasks import load_tasks

__all__ = ["home", "tutelage"]  # fixtures


@pytest.fixture(autouse=True)
def data_sets_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the package datasets keeps of a file goes where the test's other files are."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def samples_of(model: Any, tasks: Any, *, served: bool) -> Any:
    from lm_eval.evaluator import evaluate

    how = {"apply_chat_template": served, "fewshot_as_multiturn": served}
    return evaluate(lm=model, task_dict=tasks.loaded, bootstrap_iters=0, log_samples=True, **how)


@pytest.mark.parametrize("served", [False, True])
def test_answers_are_those_of_the_harness_own_model(tiny_model_folder: Path, tmp_path: Path, served: bool) -> None:
    from lm_eval.models.huggingface import HFLM

    paths = [str(path) for path in write_tasks(tmp_path).values()]
    tasks = load_tasks(paths, log=print)
    theirs = HFLM(pretrained=str(tiny_model_folder), device="cpu", batch_size=2, dtype="float32")
    expected = samples_of(theirs, tasks, served=served)
    found = samples_of(harness_model(tiny_model_folder), tasks, served=served)

    for task, items in expected["samples"].items():
        for theirs_of_item, own in zip(items, found["samples"][task], strict=True):
            assert own["arguments"] == theirs_of_item["arguments"], "the prompts are the same to the letter"
            for own_answer, answer in zip(own["resps"], theirs_of_item["resps"], strict=True):
                if task == "own_replies":
                    assert own_answer == answer
                elif task == "own_texts":
                    assert own_answer[0] == pytest.approx(answer[0], abs=1e-4)
                else:
                    assert own_answer[0][0] == pytest.approx(answer[0][0], abs=1e-4)
                    assert own_answer[0][1] == answer[0][1]
    assert found["results"]["own_choices"] == pytest.approx(expected["results"]["own_choices"])


def test_a_data_set_that_is_not_on_this_machine_is_one_sentence(tmp_path: Path) -> None:
    (path,) = [path for name, path in write_tasks(tmp_path).items() if name == "own_choices"]
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(SourceNotFoundError, match="cannot be had"):
        load_tasks([str(path)], log=print)


def test_a_run_alone_stands_beside_its_base(tutelage: Tutelage, home: Path, tmp_path: Path) -> None:
    paths = write_tasks(tmp_path)
    for run in ("tiny", "whole"):
        folder = str(home / "runs" / run)
        asked = ("--lm-eval", f"{paths['own_choices']},{paths['own_replies']}", "--lm-eval", str(paths["own_texts"]))
        code, out, err = tutelage("evaluate", folder, *asked, "--json")
        assert code == 0, err
        answers = json.loads(out)
        assert list(answers["models"]) == [f"base of {folder}", folder]
        change = answers["compared"][folder]["lm_eval"]["own_choices acc"]
        assert change["items"] == len(QUESTIONS)
        assert change["change"]["verdict"] in ("gained", "lost", "kept", "not shown")
        base, tuned = answers["models"].values()
        assert base["lm_eval_numbers"].keys() == {"own_texts word_perplexity"}
        assert base["lm_eval_numbers"] != tuned["lm_eval_numbers"], "the two are not the same model"
        assert base["lm_eval"].keys() == tuned["lm_eval"].keys()

    code, out, err = tutelage("evaluate", folder, *asked, "--set", "evaluate.lm_eval_items=2")
    assert code == 0, err
    assert "own_choices acc" in out
    assert "own_texts word_perplexity" in out


def test_a_run_asks_its_tasks_before_and_after(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    task = write_tasks(tmp_path / "tasks")["own_choices"]
    recipe = str(tiny_recipe(tmp_path))
    code, out, err = tutelage("train", recipe, "train.max_steps=2", f'evaluate.lm_eval=["{task}"]')
    assert code == 0, err
    result = json.loads((tmp_path / "runs" / "tiny" / "result.json").read_text(encoding="utf-8"))
    assert result["before"]["lm_eval"].keys() == {"own_choices acc", "own_choices acc_norm"}
    assert result["uncertainty"]["lm_eval"]["own_choices acc"]["change"] is not None
    assert "own_choices acc_norm" in out
    assert "own_choices acc_norm" in (tmp_path / "runs" / "tiny" / "report.html").read_text(encoding="utf-8")

    code, out, err = tutelage("evaluate", str(tmp_path / "runs" / "tiny"), "--json")
    assert code == 0, err
    assert json.loads(out)["lm_eval"] == result["after"]["lm_eval"]


def test_an_unknown_task_ends_before_a_model_is_loaded(tutelage: Tutelage, home: Path) -> None:
    code, out, err = tutelage("evaluate", str(home / "runs" / "tiny"), "--lm-eval", "arc_eazy")
    assert code == 1
    assert "lm-eval has no task 'arc_eazy'" in err
    assert "arc_easy" in err
    assert "Measuring" not in err
    assert "Traceback" not in out + err
