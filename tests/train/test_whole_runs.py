"""Whole runs of the tiny model: what they leave behind, that they learn, and that they can be repeated."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage import config
from tutelage.api.run import Run
from tutelage.builders import method as method_module
from tutelage.distributed import strategy as strategy_module
from tutelage.errors import ConfigError, DataError, SaveError, SourceNotFoundError, TrainingError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.uncertainty import VERDICTS
from tutelage.train import run as run_module
from tutelage.train import startup
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
PROMISED = {
    "gained_and_forgot", "forgot_step",
    "name", "model", "method", "steps", "epochs", "stopped_early", "best_step", "before", "after", "uncertainty",
    "losses", "multiple_choice", "divergence", "noise", "transitions", "unmeasured", "unchecked", "trained_sha256",
    "tokens_per_second",
    "trained_tokens", "total_tokens", "peak_bytes", "dropped", "examples", "parameters", "bytes", "device", "precision",
    "versions", "seed", "settings_sha256", "template_sha256", "tokenizer_sha256", "data_sha256", "git_commit",
    "started", "elapsed_seconds", "resumed",
}  # fmt: skip


def plain_model(base: Path, finished: Finished) -> Any:
    """What the run saved, opened by other tools alone."""
    if finished.result["method"] == "lora":
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), finished.folder / "adapter")
    return AutoModelForCausalLM.from_pretrained(finished.folder / "model")


def plain_reply(model: Any, folder: Path, words: str) -> tuple[str, int]:
    """A greedy reply through transformers alone, and its last token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": words}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**ids, do_sample=False, max_new_tokens=40, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    return tokenizer.decode(output, skip_special_tokens=True), int(output[-1])


def spoil(home: Path) -> None:
    """Add two rows that must go: one spells a control token, one is too long."""
    with (home / "train.jsonl").open("a", encoding="utf-8") as stream:
        for text in ("say <|im_end|> to me", "too long " * 200):
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "{}"}]
            stream.write(json.dumps({"messages": turns}) + "\n")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_leaves_all_that_is_promised(
    train_tiny: TrainTiny,
    record_of: Any,
    tiny_recipe: Callable[[Path], Path],
    tiny_model_folder: Path,
    tmp_path: Path,
    method: str,
    precision: str,
) -> None:
    tiny_recipe(tmp_path / "home")
    spoil(tmp_path / "home")

    finished = train_tiny(f"model.method={method}", f"model.precision={precision}", "train.checkpoint_every=5")

    folder = finished.folder
    saved = "adapter" if method == "lora" else "model"
    assert finished.ended == "finished"
    assert folder == tmp_path / "home" / "runs" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "settings.toml", "inputs.json", "record.jsonl", "ledger.json", "ledger.jsonl", "before.json", "after.json",
        "rows.json", "result.json", "checkpoints", "report.html", "run.lock", "starts.json",
        saved,
    }  # fmt: skip

    result = run_files.read_json(folder / "result.json")
    assert result == finished.result
    assert set(result) == PROMISED
    assert (result["steps"], result["epochs"], result["stopped_early"]) == (12, 4.0, False)
    assert result["dropped"] == {"control_token_in_text": 1, "too_long": 1}
    for side in ("before", "after"):
        for key in ("exact_match", "valid_json", "general"):
            assert 0.0 <= result[side][key] <= 1.0
        assert result[side]["heldout_loss"] > 0
        assert set(result[side]["fields"]) == {"item", "count", "urgent"}
    assert result["after"]["heldout_loss"] < result["before"]["heldout_loss"]
    found = result["uncertainty"]
    assert set(found["shares"]) == {"exact_match", "valid_json", "general"}
    assert set(found["fields"]) == {"item", "count", "urgent"}
    assert found["capabilities"] == {}  # the general set has no two topics of ten items
    assert set(result["transitions"]) == {"lost", "gained", "lost_items"}
    for name, share in (*found["shares"].items(), *found["fields"].items()):
        for side in ("before", "after"):
            value = result[side].get(name, result[side]["fields"].get(name))
            assert share[side]["low"] <= value <= share[side]["high"], name
            assert value * share["items"] == pytest.approx(round(value * share["items"]))
        assert share["change"]["verdict"] in VERDICTS
    for side in ("before", "after"):
        assert {"ended", "not_empty", "no_loop", "tokens_90"} <= set(result[side]["health"]["task"])
        assert 0 < result[side]["health"]["general"]["median_tokens"] <= 40
    assert {"task ended", "general no_loop"} <= set(found["health"])
    assert result["noise"]["prompts"] == result["noise"]["judged"] == 6, "of four rows and two general prompts"
    assert len(result["examples"]) == 3
    assert result["examples"][0]["prompt"] == "My sister asks for 1 lamps!"
    assert result["examples"][0]["reference"] == '{"item": "lamp", "count": 1, "urgent": true}'
    assert result["tokens_per_second"] > 0
    assert result["peak_bytes"] > 10**7
    assert 0 < result["trained_tokens"] < result["total_tokens"]
    trainable, total = result["parameters"]["trainable"], result["parameters"]["total"]
    assert (trainable == total) == (method == "full")

    steps, heldout = record_of(folder)
    assert sorted(steps) == list(range(1, 13))
    assert sum(line["trained_tokens"] for line in steps.values()) == result["trained_tokens"]
    assert sum(line["tokens"] for line in steps.values()) == result["total_tokens"]
    assert steps[12]["loss"] < 0.7 * steps[1]["loss"]
    assert steps[1]["loss"] == pytest.approx(math.log(416), rel=0.2), "an untrained model guesses"
    assert result["after"]["heldout_loss"] == pytest.approx(min(heldout.values()), rel=1e-6)
    assert heldout[result["best_step"]] == min(heldout.values())

    ledger = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    assert ledger["rows_in"] == ledger["rows_kept"] + ledger["rows_dropped"] == 36
    assert len((folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    settings = config.load(folder / "settings.toml")
    assert (settings.model.method, settings.model.precision, settings.seed) == (method, precision, 7)
    assert "tiny" in (folder / "report.html").read_text(encoding="utf-8")

    reply, _ = plain_reply(plain_model(tiny_model_folder, finished), folder / saved, "My sister asks for 1 lamps!")
    if precision == "fp32":
        assert reply == result["examples"][0]["after"].replace("<|endoftext|>", "").replace("<|im_start|>", "")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["stored_fp32", "stored_bf16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_saved_is_what_was_measured(
    train_tiny: TrainTiny,
    tiny_model_folder: Path,
    quiet_screen: Screen,
    tmp_path: Path,
    method: str,
    stored: torch.dtype,
    precision: str,
) -> None:
    """The folder is opened again and measured again: the same numbers to the last bit."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model_folder, base)
    AutoModelForCausalLM.from_pretrained(base, dtype=stored).save_pretrained(base)

    finished = train_tiny(
        f"model.name={base}", f"model.method={method}", f"model.precision={precision}", "evaluate.before=false"
    )
    again = Run(finished.folder).evaluate(base=False)

    assert asdict(again) == finished.result["after"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_four_rows_are_learnt_by_heart_with_their_stop_token(
    train_tiny: TrainTiny, tiny_model_folder: Path, method: str
) -> None:
    finished = train_tiny(
        f"model.method={method}",
        "data.max_rows=4",
        "data.validation=",
        "evaluate.general=",
        "evaluate.examples=4",
        "train.batch_size=4",
        *(["train.epochs=60"] if method == "full" else ["train.epochs=120", "lora.rank=32", "lora.alpha=64"]),
    )

    assert finished.result["after"]["exact_match"] == 1.0
    assert finished.result["best_step"] is None
    model = plain_model(tiny_model_folder, finished)
    stop = model.generation_config.eos_token_id
    for example in finished.result["examples"]:
        folder = finished.folder / ("adapter" if method == "lora" else "model")
        assert plain_reply(model, folder, example["prompt"]) == (example["reference"], stop)


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not(train_tiny: TrainTiny, record_of: Any) -> None:
    quick = ("train.max_steps=5", "lora.dropout=0.1", "evaluate.task=", "evaluate.general=")
    runs = [train_tiny(*quick, f"seed={seed}", where=where) for where, seed in (("a", 3), ("b", 3), ("c", 4))]

    first, second, third = ([line["loss"] for line in record_of(run.folder)[0].values()] for run in runs)

    assert first == second
    assert all(mine != other for mine, other in zip(first, third, strict=True))
    adapters = [(run.folder / "adapter" / "adapter_model.safetensors").read_bytes() for run in runs]
    assert adapters[0] == adapters[1] != adapters[2]


def test_early_stop_saves_the_best_weights(train_tiny: TrainTiny, record_of: Any) -> None:
    """A rate this high overshoots: held-out loss turns up again."""
    finished = train_tiny(
        "model.method=full",
        "data.max_rows=2",
        "train.epochs=200",
        "train.learning_rate=0.02",
        "train.evaluate_every=4",
        "train.early_stopping_patience=2",
        "evaluate.task=",
        "evaluate.general=",
    )

    steps, heldout = record_of(finished.folder)
    assert finished.ended == "early_stop"
    assert finished.result["stopped_early"]
    assert max(steps) < 100
    best = finished.result["best_step"]
    assert heldout[best] == min(heldout.values())
    assert max(steps) == best + 8
    assert finished.result["after"]["heldout_loss"] == pytest.approx(heldout[best], rel=1e-6)


def test_absurd_learning_rate_ends_with_addresses(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not finite") as caught:
        train_tiny("model.method=full", "train.learning_rate=1e30", "train.epochs=9", "evaluate.task=")

    assert "train.jsonl:" in str(caught.value.where)
    assert "learning_rate" in str(caught.value.fix)
    assert not (tmp_path / "home" / "runs" / "tiny" / "result.json").exists()


def test_a_loss_of_nan_ends_with_addresses(train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    row_loss = strategy_module.row_loss

    def broken(model: Any, row: Any, **named: Any) -> tuple[torch.Tensor, int]:
        total, count = row_loss(model, row, **named)
        return total * math.nan, count

    monkeypatch.setattr(strategy_module, "row_loss", broken)

    with pytest.raises(TrainingError, match="Step 1 is not finite") as caught:
        train_tiny("evaluate.before=false")

    assert "train.jsonl:" in str(caught.value.where)


def test_without_questions_only_loss_is_measured(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    finished = train_tiny("train.max_steps=2", "evaluate.before=false", "evaluate.task=", "evaluate.general=")

    assert finished.result["before"] == {
        "exact_match": None, "valid_json": None, "heldout_loss": None, "general": None, "fields": {}, "scores": {},
        "capabilities": {}, "health": {}, "lm_eval": {}, "lm_eval_numbers": {},
    }  # fmt: skip
    assert finished.result["after"]["heldout_loss"] > 0
    assert finished.result["after"]["exact_match"] is None
    told = quiet_screen.console.file.getvalue()
    assert "After training: held-out loss" in told
    assert "prompts" not in told


def test_an_earlier_run_of_the_name_stays(train_tiny: TrainTiny) -> None:
    quick = ("train.max_steps=1", "evaluate.before=false", "evaluate.task=", "evaluate.general=")
    first = train_tiny(*quick)
    kept = (first.folder / "result.json").read_bytes()

    second = train_tiny(*quick)

    assert second.folder == first.folder
    assert (first.folder.with_name("tiny.1") / "result.json").read_bytes() == kept


@pytest.mark.parametrize("what", ["settings", "result", "model", "report"])
def test_a_full_disk_is_a_save_error(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, files_at_most: Any, tmp_path: Path, what: str
) -> None:
    """The system refuses files beyond a small size while one thing is written."""
    owner, name, size_bytes = {
        "settings": (startup, "_write_inputs", 50),
        "result": (run_files, "write_json", 50),
        "model": (run_module, "save_trained", 4000),
        "report": (run_module.report, "write", 2000),
    }[what]
    write = getattr(owner, name)

    def refused(*given: Any, **named: Any) -> Any:
        if what == "result" and given[0].name != run_files.RESULT:
            return write(*given, **named)
        with files_at_most(size_bytes):
            return write(*given, **named)

    monkeypatch.setattr(owner, name, refused)

    with pytest.raises(SaveError):
        train_tiny("train.max_steps=2", "evaluate.before=false", "evaluate.task=", "evaluate.general=")

    folder = tmp_path / "home" / "runs" / "tiny"
    if what == "result":
        assert not (folder / "result.json").exists()
    if what == "model":
        assert not (folder / "adapter").exists()
        assert not (folder / "result.json").exists(), "it would mark the run as finished"
    if what != "settings":
        assert (folder / "checkpoints" / "step-000002").is_dir()


def test_a_model_that_is_nowhere(train_tiny: TrainTiny, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="neither a file here"):
        train_tiny("model.name=nobody/no-such-model")

    assert not (tmp_path / "home" / "runs").exists()


def test_a_learning_rate_of_nan_is_refused(train_tiny: TrainTiny) -> None:
    with pytest.raises(ConfigError, match=r"1 problem in") as caught:
        train_tiny("train.learning_rate=nan")

    assert "train.learning_rate" in str(caught.value.found)


def test_an_unknown_target_is_refused(train_tiny: TrainTiny) -> None:
    with pytest.raises(ConfigError, match="does not find its targets"):
        train_tiny('lora.target_modules=["no_such_layer"]', "evaluate.before=false")


def test_data_that_cannot_be_trained_is_refused_before_the_model_is_loaded(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_module, "load", lambda *_, **__: pytest.fail("the model was loaded"))

    with pytest.raises(DataError, match="Nothing is left to train on") as caught:
        train_tiny("pack.max_seq_length=8", "data.validation=", "evaluate.task=")

    assert "24 rows dropped: too_long" in str(caught.value.found)


def write_talk(folder: Path) -> None:
    turns = [{"role": "user", "content": "Say hello"}, {"role": "assistant", "content": "hello"}]
    (folder / "task.jsonl").write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")


def test_task_rows_without_json_are_refused_before_training_where_json_is_asked_for(
    train_tiny: TrainTiny, tiny_recipe: Callable[[Path], Path], tmp_path: Path
) -> None:
    tiny_recipe(tmp_path / "home")
    write_talk(tmp_path / "home")

    with pytest.raises(DataError, match="not a JSON object") as caught:
        train_tiny("evaluate.before=false", "train.max_steps=1", 'evaluate.checkers=["json_fields"]')

    assert "task.jsonl:1" in str(caught.value.where)
    assert not (tmp_path / "home" / "runs" / "tiny" / "checkpoints").exists()


def test_a_task_of_plain_replies_has_scores_everywhere(
    train_tiny: TrainTiny, tiny_recipe: Callable[[Path], Path], tmp_path: Path
) -> None:
    """In result.json with intervals, in the saved measures, in the table of the run and on its page."""
    tiny_recipe(tmp_path / "home")
    write_talk(tmp_path / "home")

    finished = train_tiny("train.max_steps=1")

    for phase in ("before", "after"):
        assert finished.result[phase]["scores"].keys() == {"exact_match", "rouge_l"}
        assert finished.result[phase]["exact_match"] is None
    scores = finished.result["uncertainty"]["scores"]
    assert {name: share["graded"] for name, share in scores.items()} == {"exact_match": False, "rouge_l": True}
    assert all(share["change"]["verdict"] in VERDICTS for share in scores.values())
    assert finished.result["unchecked"] == {}
    saved = run_files.read_json(finished.folder / run_files.AFTER)
    assert saved["outcomes"]["score exact_match"] == [False]
    assert "ROUGE-L" in repr(Run(finished.folder))
    page = (finished.folder / run_files.REPORT).read_text(encoding="utf-8")
    assert 'data-score="score-rouge_l"' in page
    assert "0 rose, 0 fell of 1 item" in page


def test_the_screen_tells_the_story(train_tiny: TrainTiny, quiet_screen: Screen) -> None:
    train_tiny("train.max_steps=1")

    told = quiet_screen.console.file.getvalue()
    assert "Data: 34 rows in = 34 kept + 0 dropped; 24 training sequences" in told
    assert "Model: " in told
    assert "Before training: asking 6 prompts" in told
    assert "step 1/1" in told
    assert "After training: asking 6 prompts" in told
