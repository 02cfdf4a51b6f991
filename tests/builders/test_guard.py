"""A search among remedies: what is trained once, what goes on, what is measured on which half."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.builders.dial import opened_for_dial
from tutelage.builders.guard import GUARD, Guarded, run_guard
from tutelage.builders.guard_measure import measure_at
from tutelage.builders.guard_plan import GuardPlan, plan_guard
from tutelage.config import Settings
from tutelage.errors import ConfigError, TrainingError
from tutelage.evaluate.dial import BASE, TUNED
from tutelage.evaluate.guard_choice import Choice, Trial
from tutelage.report.console.progress import Screen
from tutelage.runs.folder import read_json, read_settings, write_json
from tutelage.train.run import Finished, run

SHORT = ("train.max_steps=2", "evaluate.task=", "evaluate.max_new_tokens=4", "evaluate.divergence_prompts=0")
WORDS = ("one", "two", "ten", "six", "nine", "seven")

Answer = Mapping[str, Any] | None


@pytest.fixture
def recipe(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Path:
    path = tiny_recipe(tmp_path / "home")
    rows = [{"prompt": f"Say {word}.", "checks": [{"kind": "plain_text"}]} for word in WORDS]
    (path.parent / "general.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def one_value_of_the_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.builders.guard.DIAL", (0.5,))


class Trainer:
    """Trains for real, or as it is told to by name, and remembers what it was asked."""

    def __init__(self, screen: Screen, instead: Mapping[str, Callable[[], Answer]]) -> None:
        self.screen, self.instead = screen, instead
        self.asked: list[tuple[str | None, bool]] = []

    def __call__(self, settings: Settings, resume: bool) -> Answer:
        self.asked.append((settings.name, resume))
        if settings.name in self.instead:
            return self.instead[settings.name]()
        finished = run(settings, self.screen, resume=resume)
        return None if finished.ended == "interrupted" else finished.result


@pytest.fixture
def search(recipe: Path, quiet_screen: Screen) -> Callable[..., tuple[Guarded | None, Trainer, GuardPlan]]:
    """Searches: limit, runs, further overrides, and what is done in place of training some candidates."""

    def go(
        *overrides: str, limit: float = 0.5, runs: int = 2, first: bool = False, **instead: Callable[[], Answer]
    ) -> tuple[Guarded | None, Trainer, GuardPlan]:
        settings = config.load(recipe, [*SHORT, *overrides])
        plan = plan_guard(settings, limit, runs=runs, stops_at_first=first, log=lambda _: None)
        trainer = Trainer(quiet_screen, {name.replace("_", "-"): act for name, act in instead.items()})
        return run_guard(plan, trainer, quiet_screen), trainer, plan

    return go


def test_a_finished_search_trains_and_asks_nothing_again(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, trainer, plan = search()

    assert trainer.asked == [("as-it-is", False), ("half-rate", False)]
    names = [trial["name"] for entry in guarded.record["candidates"] for trial in entry["trials"]]
    assert names == ["as-it-is", "as-it-is at 0.5", "half-rate", "half-rate at 0.5"]
    for measure in ("measure_at", "measure_dial", "save_dial_model"):
        monkeypatch.setattr(f"tutelage.builders.guard.{measure}", lambda *_, **__: pytest.fail("asked again"))
    again, trainer, _ = search()
    assert trainer.asked == []
    assert again.record == guarded.record
    assert again.record | {"sha256_of_the_above": ""} == read_json(plan.folder / GUARD) | {"sha256_of_the_above": ""}


def test_the_halves_of_the_report_and_the_choice_are_asked_apart(search: Any) -> None:
    guarded, _, plan = search(runs=1)

    choice, report = (
        {json.loads(line)["prompt"] for line in file.read_text(encoding="utf-8").splitlines()}
        for file in (plan.choice_file, plan.report_file)
    )
    assert (len(choice), len(report), choice & report) == (3, 3, set())
    settings = (plan.folder / "as-it-is" / "settings.toml").read_text(encoding="utf-8")
    assert str(plan.choice_file) in settings
    assert str(plan.report_file) not in settings, "no run was asked the half of the report"
    shares = guarded.record["report"]["uncertainty"]["shares"]
    assert (list(shares), shares["general"]["items"]) == (["general"], 3)
    assert all(trial["items"] == 3 for entry in guarded.record["candidates"] for trial in entry["trials"])


def test_each_candidate_has_its_dial_of_the_choosing_half(search: Any) -> None:
    guarded, _, plan = search(runs=1)
    folder = plan.folder / "as-it-is"
    values = read_json(folder / "dial.json")["values"]
    assert list(values) == ["0", "0.5", "1"]
    assert {len(entry["outcomes"]["general"]) for entry in values.values()} == {len(plan.halves.choice)}
    assert "<svg" in (folder / "dial.html").read_text(encoding="utf-8")
    prompts = {item.prompt for item in plan.halves.report}
    written = [path for path in folder.rglob("*.json*") if path.is_file()]
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in written)
    assert not [prompt for prompt in prompts if prompt in text], "no file of a run has a prompt of the report's half"
    assert guarded.record["report"]["model"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_chosen_value_of_the_dial_is_kept_as_a_model(
    search: Any, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen, method: str
) -> None:
    monkeypatch.setattr("tutelage.builders.guard.choose", at_half_of_the_dial)
    guarded, _, plan = search(f"model.method={method}", runs=1)
    run_folder = plan.folder / "as-it-is"
    kept = Path(guarded.record["report"]["model"])
    assert kept == run_folder / "at-0.5"
    ids = torch.tensor([[5, 17, 300, 41]])
    with opened_for_dial(run_folder, read_settings(run_folder), quiet_screen).at(0.5) as model, torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
    settings = read_settings(run_folder)
    if method == "lora":
        base = AutoModelForCausalLM.from_pretrained(settings.model.name)
        opened = PeftModel.from_pretrained(base, kept)
    else:
        opened = AutoModelForCausalLM.from_pretrained(kept)
    with torch.no_grad():
        torch.testing.assert_close(opened.eval()(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)
    again, trainer, _ = search(f"model.method={method}", runs=1)
    assert trainer.asked == []
    assert again.record["report"]["model"] == str(kept)


def at_half_of_the_dial(trials: Sequence[Trial], _limit: float) -> Choice:
    return Choice(next(trial for trial in trials if trial.dial == 0.5), within=True, tied=())


def first_result(plan: GuardPlan) -> dict[str, Any]:
    return read_json(plan.folder / "as-it-is" / "result.json")


def test_what_was_interrupted_goes_on(search: Any, stop_after: Any) -> None:
    stop_after(1)
    guarded, trainer, plan = search()
    assert guarded is None
    assert trainer.asked == [("as-it-is", False)]

    stop_after(None)
    guarded, trainer, _ = search()

    assert trainer.asked == [("as-it-is", True), ("half-rate", False)]
    assert guarded.record["candidates"][0]["resumed"]
    base = first_result(plan)["before"]["heldout_loss"]
    assert guarded.record["chosen"]["base_score"] == pytest.approx(-base)
    assert not list(plan.folder.glob("*.1")), "nothing was moved aside"


def test_what_is_finished_when_a_kill_comes_before_its_entry_is_not_trained_again(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tutelage.builders.guard.measure_dial", killed)
        with pytest.raises(KeyboardInterrupt):
            search(runs=1)

    guarded, trainer, _ = search(runs=1)

    assert trainer.asked == []
    assert [trial["name"] for trial in guarded.record["candidates"][0]["trials"]] == ["as-it-is", "as-it-is at 0.5"]


def test_other_settings_are_trained_anew(search: Any) -> None:
    search(runs=1)
    _, trainer, plan = search("train.learning_rate=2e-3", runs=1)

    assert trainer.asked == [("as-it-is", False)]
    assert (plan.folder / "as-it-is.1").is_dir()


def test_a_candidate_that_cannot_be_trained_is_left_behind(search: Any) -> None:
    def diverges() -> Answer:
        raise TrainingError("The loss is not finite", found="step 3")

    guarded, _, _ = search(as_it_is=diverges)
    assert guarded.choice.trial.run == "half-rate"
    assert guarded.record["candidates"][0]["problem"] == "The loss is not finite (step 3)"
    _, trainer, _ = search()
    assert trainer.asked == [], "it would fail again"
    with pytest.raises(TrainingError, match="No candidate"):
        search(limit=0.1, runs=1)


def test_a_run_of_the_guards_name_is_left_alone(search: Any, recipe: Path, quiet_screen: Screen) -> None:
    finished = run(config.load(recipe, [*SHORT, "name=tiny-guard", "evaluate.general="]), quiet_screen)
    files = sorted(path.name for path in finished.folder.iterdir())

    with pytest.raises(ConfigError):
        search(runs=1)

    assert sorted(path.name for path in finished.folder.iterdir()) == files


def test_the_first_within_the_limit_can_end_the_search(search: Any) -> None:
    guarded, trainer, _ = search(limit=0.99, first=True)

    assert trainer.asked == [("as-it-is", False)]
    assert guarded.record["tried"] == ["as-it-is"]


def test_another_choice_after_the_report_was_seen_is_said(search: Any) -> None:
    first, _, plan = search(runs=1)
    record = read_json(plan.folder / GUARD)
    record["reports"][0] |= {"key": "of another choice", "name": "other"}
    record.pop("sha256_of_the_above", None)
    write_json(plan.folder / GUARD, record)

    again, _, _ = search(runs=1)

    assert first.record["report"]["asked_before"] == []
    assert again.record["report"]["asked_before"] == ["other"]


@pytest.mark.parametrize(
    "method", ["full", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("lora", "prompt"))]
)
def test_the_ends_of_the_dial_are_what_the_run_measured(
    train_tiny: Callable[..., Finished], quiet_screen: Screen, method: str
) -> None:
    """Before and after as `train` has them, by another path: a folder that is opened again."""
    rate = "train.learning_rate=" + ("1e-1" if method == "prompt" else "1e-2")
    finished = train_tiny(f"model.method={method}", rate, "train.max_steps=2", "evaluate.divergence_prompts=0")

    general = config.load(finished.folder / "settings.toml").evaluate.general
    measured = measure_at(finished.folder, (BASE, TUNED), screen=quiet_screen, general=general)

    for value, when in ((BASE, "before"), (TUNED, "after")):
        assert measured[value].metrics.general == finished.result[when]["general"]
        assert measured[value].metrics.heldout_loss is None, "nothing else is asked"
