"""A run that measures its model while it trains: the same losses, one measurement of each, and an end by forgetting."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from tests.support.cli_process import launch
from tutelage import config
from tutelage.builders import intermediate
from tutelage.builders.dial import measure_dial
from tutelage.builders.guard_measure import measure_at
from tutelage.builders.measured import uncertainty_between
from tutelage.builders.measured_steps import measured_line, measured_steps
from tutelage.errors import CheckpointError, ConfigError
from tutelage.evaluate.dial import dial_of
from tutelage.evaluate.intermediate import read_intermediate_result, write_intermediate
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.report.console.progress import Screen
from tutelage.runs.intermediate import LOST, IntermediateMeasure, MeasuredChange
from tutelage.runs.metrics_log import MeasuredRecord, read_record
from tutelage.train import intermediate as train_intermediate
from tutelage.train import run as run_module
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
QUICK = ("train.max_steps=6", "evaluate.max_new_tokens=4", "train.evaluate_every=3", "lora.dropout=0.1")
AT = "evaluate.measure_at=[0.5, 1]"


def lines(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the record: all but what was measured on the way, without times; and that."""
    kept, damaged = read_record(run / "record.jsonl")
    assert damaged == []
    times = ("elapsed_seconds", "tokens_per_second", "peak_bytes")
    steps = [{key: value for key, value in line.items() if key not in times} for line in kept if "measured" not in line]
    return steps, [line for line in kept if "measured" in line]


def weights(run: Path) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load_file(run / "adapter" / "adapter_model.safetensors").items()}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_and_weights_are_those_of_a_run_without(train_tiny: TrainTiny, method: str) -> None:
    common = (*QUICK, f"model.method={method}", "train.ema_decay=0.9", "train.residual_dropout=0.1")
    common = common if method == "lora" else tuple(one for one in common if not one.startswith("lora."))
    plain = train_tiny(*common, where="plain")

    measured = train_tiny(*common, AT, where="measured")

    steps, on_the_way = lines(measured.folder)
    assert steps == lines(plain.folder)[0]
    assert measured.result["after"] == plain.result["after"]
    folders = ("adapter", "model")
    (trained,) = (measured.folder / name for name in folders if (measured.folder / name).is_dir())
    (expected,) = (plain.folder / name for name in folders if (plain.folder / name).is_dir())
    for file in expected.glob("*.safetensors"):
        assert file.read_bytes() == (trained / file.name).read_bytes()
    assert [line["step"] for line in on_the_way] == [1, 3]


def test_what_was_measured_is_recorded_kept_and_drawn(train_tiny: TrainTiny) -> None:
    run = train_tiny(*QUICK, "train.learning_rate=0.02", AT, where="measured").folder

    _, on_the_way = lines(run)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    for line in on_the_way:
        measured = line["measured"]
        assert (measured["gain_of"], measured["forgotten_of"]) == ("exact_match", "general")
        assert set(measured["divergence"]) == {"task", "general"}
        assert measured["divergence"]["task"]["mean"] > 0
        assert measured["seconds"] > 0
        assert measured["metrics"]["heldout_loss"] > 0
        assert measured["forgotten"]["low"] <= measured["forgotten"]["number"] <= measured["forgotten"]["high"]
        before, now = result["before"], measured["metrics"]
        assert measured["forgotten"]["number"] == pytest.approx(before["general"] - now["general"])
        assert measured["gain"]["number"] == pytest.approx(now["exact_match"] - before["exact_match"])
        saved = json.loads((run / f"intermediate/step-{line['step']:06d}.json").read_text(encoding="utf-8"))
        assert saved["measures"] == now
        assert len(saved["task"]) == 4
    heldout = {line["step"]: line["heldout_loss"] for line in lines(run)[0] if "heldout_loss" in line}
    assert on_the_way[1]["measured"]["metrics"]["heldout_loss"] == pytest.approx(heldout[3], rel=1e-6)
    assert not list(run.glob("replies-*"))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'data-chart="gained-and-forgot"' in page
    assert 'data-chart="divergence"' in page
    assert "Measuring 2 times while training took" in page


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of what is asked from now on while a model trains."""
    titles: list[str] = []
    original = intermediate.run_suite_on_ranks

    def noting(*asked: Any, title: str, **how: Any) -> Any:
        titles.append(title)
        return original(*asked, title=title, **how)

    monkeypatch.setattr(intermediate, "run_suite_on_ranks", noting)
    return titles


def test_a_resume_measures_no_step_twice(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = "evaluate.measure_every=2"
    whole = train_tiny(*QUICK, at, where="whole")
    titles = counted(monkeypatch)
    stop_after(3)
    train_tiny(*QUICK, at, "train.checkpoint_every=1", where="parts")
    assert titles == ["After step 2"]

    stop_after(None)
    resumed = train_tiny(*QUICK, at, "train.checkpoint_every=1", where="parts", resume=True)

    assert titles == ["After step 2", "After step 4"]
    assert lines(resumed.folder)[0] == lines(whole.folder)[0]
    assert weights(resumed.folder) == weights(whole.folder)
    assert [line["step"] for line in lines(resumed.folder)[1]] == [2, 4]


def test_steps_taken_again_after_a_crash_are_not_measured_again(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = (*QUICK, "evaluate.measure_every=2")
    whole = train_tiny(*common, where="whole")
    titles, set_again = counted(monkeypatch), train_intermediate.restore_rng_state

    def crash(state: Any) -> None:
        if len(titles) == 2:
            raise OSError("as if the machine had gone, with step 4 measured and not recorded")
        set_again(state)

    monkeypatch.setattr(train_intermediate, "restore_rng_state", crash)
    with pytest.raises(OSError, match="as if"):
        train_tiny(*common, "train.checkpoint_every=3", where="parts")
    monkeypatch.setattr(train_intermediate, "restore_rng_state", set_again)

    resumed = train_tiny(*common, "train.checkpoint_every=3", where="parts", resume=True)

    assert titles == ["After step 2", "After step 4"]
    assert lines(resumed.folder)[0] == lines(whole.folder)[0]
    for line, expected in zip(lines(resumed.folder)[1], lines(whole.folder)[1], strict=True):
        assert line["step"] == expected["step"]
        assert line["measured"]["metrics"] == expected["measured"]["metrics"]


def test_other_weights_are_measured_again(tmp_path: Path) -> None:
    path, result = tmp_path / "intermediate" / "step-000002.json", EvalResult(Metrics(general=0.5), (), ("yes",))
    write_intermediate(path, result, weights_sha256="a", seconds=2.0)
    notes: list[str] = []

    assert read_intermediate_result(path, weights_sha256="b", log=notes.append) is None
    known = read_intermediate_result(path, weights_sha256="a", log=notes.append)

    assert notes == []
    assert known is not None
    assert known[0].measures.general == 0.5
    assert known[1] == 2.0
    path.write_text(path.read_text(encoding="utf-8").replace("yes", "no"), encoding="utf-8")
    assert read_intermediate_result(path, weights_sha256="a", log=notes.append) is None
    assert "damaged" in notes[0]


def plain_set(folder: Path, *, items_of_source: int | None = None) -> str:
    """A general set that a model loses as it learns to reply in JSON; some items are questions on one passage."""
    path = folder / "plain.jsonl"
    rows = [{"prompt": f"Say {number}.", "checks": [{"kind": "plain_text"}]} for number in range(12)]
    if items_of_source is not None:
        rows = [row | {"source": f"passage {number // items_of_source}"} for number, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f'evaluate.general=["{path}"]'


FORGETS = (
    "train.learning_rate=0.004",
    "train.lr_scheduler=constant",
    "evaluate.max_new_tokens=6",
    "evaluate.measure_every=3",
    "train.checkpoint_every=3",
    "train.keep_checkpoints=9",
)
"""All of the set is lost between step 7 and 9 of 12."""
LIMIT = "train.early_stopping_forgetting=0.03"


def test_a_run_ends_where_it_forgot_too_much(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_screen: Screen
) -> None:
    common = (*FORGETS, plain_set(tmp_path))
    free = train_tiny(*common, where="free")
    assert [line["measured"]["forgotten"]["number"] for line in lines(free.folder)[1]] == [0.0, 0.0, 1.0]
    save, failing = run_module._save_trained, [True]

    def once(job: Any) -> None:
        if failing.pop() if failing else False:
            raise OSError("as if the machine had gone after the last step")
        save(job)

    monkeypatch.setattr(run_module, "_save_trained", once)
    with pytest.raises(OSError, match="as if"):
        train_tiny(*common, LIMIT, where="held")
    held = train_tiny(*common, LIMIT, where="held", resume=True)

    assert [line["step"] for line in lines(held.folder)[1]] == [3, 6, 9]
    found = {key: held.result[key] for key in ("steps", "best_step", "forgot_step", "stopped_early")}
    assert found == {"steps": 9, "best_step": 6, "forgot_step": 9, "stopped_early": True}
    assert held.result["after"]["general"] == held.result["before"]["general"]
    kept = load_file(free.folder / "checkpoints/step-000006/masters.safetensors")
    trained = load_file(held.folder / "adapter" / "adapter_model.safetensors")
    assert sorted(value.float().sum().item() for value in trained.values()) == pytest.approx(
        sorted(value.sum().item() for value in kept.values())
    )
    assert "yes, as it forgot too much after step 9" in (held.folder / "report.html").read_text(encoding="utf-8")
    said = quiet_screen.console.file.getvalue()  # type: ignore[attr-defined] # a StringIO in tests
    assert "all of the 95% interval" in said
    assert "Training ends after step 9; the weights kept are those of step 6" in said
    with pytest.raises(CheckpointError, match="it forgot too much of the general set"):
        train_tiny(*common, LIMIT, where="held", resume=True)


def test_items_of_one_source_count_as_one_on_the_way_at_the_end_and_on_the_dial(
    train_tiny: TrainTiny, tmp_path: Path, quiet_screen: Screen
) -> None:
    """All is lost: of 12 items that is shown, of one passage it may be chance."""
    trained = train_tiny(*FORGETS, plain_set(tmp_path, items_of_source=12))

    measured = lines(trained.folder)[1][-1]["measured"]["forgotten"]
    assert (measured["number"], measured["low"], measured["high"]) == (1.0, -1.0, 1.0)
    at_end = trained.result["gained_and_forgot"]["forgotten"]
    assert (at_end["number"], at_end["low"], at_end["high"]) == (1.0, -1.0, 1.0)
    measures = measure_dial(str(trained.folder), [0.5], screen=quiet_screen)
    dialed = dial_of(measures, margin=0.03).points[-1].forgotten
    assert dialed is not None
    assert (dialed.number, dialed.low, dialed.high) == (1.0, -1.0, 1.0)
    other_half = measure_at(trained.folder, (0.0, 1.0), screen=quiet_screen, general=(str(tmp_path / "plain.jsonl"),))
    between = uncertainty_between(other_half[0.0], other_half[1.0]).shares["general"].change
    assert between is not None
    assert (between.range.low, between.range.high) == (-1.0, 1.0)


def test_a_first_measurement_beyond_the_limit_leaves_the_start(train_tiny: TrainTiny, tmp_path: Path) -> None:
    at = ("evaluate.measure_every=", "evaluate.measure_at=[9]")

    held = train_tiny(*FORGETS, *at, plain_set(tmp_path), LIMIT)

    assert (held.result["steps"], held.result["best_step"]) == (9, 0)
    assert {name: value for name, value in held.result["after"].items() if name != "heldout_loss"} == {
        name: value for name, value in held.result["before"].items() if name != "heldout_loss"
    }


def test_a_replay_of_such_a_run_ends_where_it_did(train_tiny: TrainTiny, tmp_path: Path) -> None:
    held = train_tiny(*FORGETS, plain_set(tmp_path), LIMIT)

    done = launch("-m", "tutelage", "train", "--replay", str(held.folder))

    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluate.measure_every=2", AT], "evaluate.measure_every: is set, and so is evaluate.measure_at"),
        ([AT, "evaluate.before=false"], "leaves nothing to hold it against"),
        ([AT, "evaluate.task=", "evaluate.general="], "nothing is asked"),
        ([LIMIT], "nothing is measured while training"),
        ([LIMIT, AT, "evaluate.general="], "evaluate.general is empty"),
        (["evaluate.measure_at=0.5"], "should be a list of numbers"),
        (["evaluate.measure_at=[1.5]"], "a fraction below 1, or a whole number of steps"),
    ],
)
def test_settings_that_show_nothing_are_refused(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load(tiny_recipe(tmp_path), overrides)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], set()),
        (["evaluate.measure_at=[0.25, 0.5, 7, 100]"], {2, 5, 7}),
        (["evaluate.measure_every=4"], {4, 8}),
        (["evaluate.measure_at=[0.001]", LIMIT], {1, 10}),
    ],
)
def test_the_steps_that_are_measured(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, overrides: list[str], steps: set[int]
) -> None:
    settings = config.load(tiny_recipe(tmp_path), overrides)

    assert measured_steps(settings, 10) == steps
    line = measured_line(settings, 10)
    assert line.startswith("before training, ")
    assert all(str(step) in line for step in steps)


def test_a_bar_of_questions_takes_the_place_of_the_bar_of_steps() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=160, force_terminal=True, _environ={"TERM": "xterm"}))
    measured = IntermediateMeasure(
        "exact_match", MeasuredChange(0.25, 0.05, 0.5), LOST, MeasuredChange(0.1, -0.1, 0.3), seconds=12.0
    )

    with screen.training(12, 0) as watch:
        with screen.counting("After step 3: asking 4 prompts", 4) as done:
            done(4)
        watch(MeasuredRecord(3, measured, 13.0))

    assert "After step 3: asking 4 prompts" in out.getvalue()
    said = (
        "step 3/12  whole row exact +25.0 points (95 % +5.0 to +50.0); "
        "general set, lost +10.0 points (95 % −10.0 to +30.0); measured in 12.0 s"
    )
    assert said in out.getvalue().replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [pytest.param("replicate", marks=pytest.mark.nightly), "shard"])
def test_two_processes_measure_what_one_does(
    train_tiny: TrainTiny, tiny_recipe: Callable[[Path], Path], tmp_path: Path, parallel: str
) -> None:
    settings = (
        "train.max_steps=4",
        "evaluate.max_new_tokens=4",
        "evaluate.measure_at=[2]",
        "pack.share_prefixes=false",
    )
    alone = train_tiny(*settings, where="alone")
    recipe, run = tiny_recipe(tmp_path / "two"), tmp_path / "two" / "runs" / "tiny"

    done = launch("-m", "tutelage", "train", str(recipe), *settings, f"model.parallel={parallel}", torchrun=2)

    assert done.returncode == 0, done.stderr[-3000:]
    (line,), (expected,) = (lines(folder)[1] for folder in (run, alone.folder))
    assert line["step"] == 2
    for name in ("gain", "forgotten"):
        assert line["measured"][name] == pytest.approx(expected["measured"][name])
    assert line["measured"]["divergence"]["task"]["mean"] == pytest.approx(
        expected["measured"]["divergence"]["task"]["mean"], abs=1e-4
    )
