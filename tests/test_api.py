"""The public API: its names and signatures, rows in memory, and the examples of its docstrings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import tutelage as tt
from tests.conftest import tiny_rows
from tests.support import ROOT
from tutelage.errors import ConfigError, DataError, SourceNotFoundError, TutelageError
from tutelage.formats.memory import keep_rows
from tutelage.runs.fingerprint import read_inputs
from tutelage.runs.metrics_log import read_record

GOLDEN = Path(__file__).with_name("api_signatures.txt")
NAMES = {
    "train", "Run", "Trainer", "load_data", "Renderer", "plan", "audit", "evaluate", "export", "Settings", "Message",
    "Conversation", "Example", "Ledger", "TutelageError",
}  # fmt: skip
OURS = ("api.actions", "api.run", "api.examples", "api.trainer")
QUICK: dict[str, Any] = {"precision": "fp32", "threads": 1, "max_new_tokens": 8, "lora": {"rank": 4}}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return tiny_rows(0, 24)


@pytest.fixture(scope="module")
def run(tiny_model_folder: Path, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tt.Run:
    folder = tmp_path_factory.mktemp("api") / "runs"
    return tt.train(
        tiny_model_folder, data=rows, validation=rows[:4], task=iter(rows[:3]), folder=folder, epochs=2,
        learning_rate=1e-2, batch_size=8, **QUICK,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _compared_here(proof_here: None) -> None:
    """Exports are compared in this process."""


def signatures() -> str:
    lines = []
    for name in sorted(tt.__all__):
        value = getattr(tt, name)
        if not value.__module__.startswith("tutelage.api"):
            lines.append(f"{name}: {value.__module__}")
            continue
        lines.append(f"{name}{inspect.signature(value)}")
        for method, member in sorted(vars(value).items()) if inspect.isclass(value) else ():
            if not method.startswith("_") and callable(member):
                lines.append(f"{name}.{method}{inspect.signature(member)}")
            elif isinstance(member, property):
                lines.append(f"{name}.{method}")
    return "\n".join(lines) + "\n"


def test_the_names_are_those_promised_and_nothing_else():
    assert set(tt.__all__) == NAMES == set(dir(tt))


def test_signatures_are_the_golden_ones():
    assert signatures() == GOLDEN.read_text(encoding="utf-8"), "if it is meant, write the file anew"


@pytest.mark.parametrize(
    "use", ["dir(tt)", "tt.Settings, tt.Message, tt.Ledger", "tt.load_data, tt.Renderer, tt.train"]
)
def test_names_load_late_and_without_torch(use: str):
    begin = "import sys; import tutelage as tt; assert not {'torch', 'pyarrow'} & set(sys.modules)"
    program = f"{begin}; {use}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_room_of_the_same_name_does_not_take_a_verbs_place():
    for name in ("train", "plan", "audit", "evaluate", "export"):
        importlib.import_module(f"tutelage.{name}")
        assert inspect.isfunction(getattr(tt, name))


def without_progress(*arguments: Any, **keywords: Any) -> tt.Run:
    """`train`, whose progress a docstring's example does not show."""
    with redirect_stdout(io.StringIO()):
        return tt.train(*arguments, **keywords)


@pytest.mark.parametrize("module", OURS)
def test_every_public_docstring_has_an_example_that_runs(
    module: str, run: tt.Run, rows: list[dict[str, Any]], tiny_model_folder: Path, tmp_path: Path
):
    loaded = importlib.import_module(f"tutelage.{module}")
    names = {name: getattr(tt, name) for name in tt.__all__}
    given = {"model": str(tiny_model_folder), "rows": rows, "run": run, "folder": str(tmp_path)} | names
    given["train"] = without_progress
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=False).find(loaded, extraglobs=given):
        public = not any(part.startswith("_") for part in test.name.split(".")[1:])
        owner = test.name.removeprefix(f"tutelage.{module}").strip(".").partition(".")[0]
        if owner in NAMES and public:
            assert test.examples, f"{test.name} has no example"
        runner.run(test, out=(said := []).append)
        assert not runner.failures, "".join(said)


def test_rows_in_memory_are_trained_on_and_recorded(run: tt.Run, rows: list[dict[str, Any]]):
    inputs = read_inputs(run.folder)
    assert set(inputs["data_sha256"]) == {"<data>", "<validation>", "<task>"}
    assert run.ledger["rows_in"] == len(rows) + 4 + 3
    assert run.result["steps"] == 6
    assert "held-out loss" in repr(run)
    assert "<table>" in run._repr_html_()
    assert [path for path in run.settings.data.train if path.startswith("<data:")]


def test_a_run_reads_rows_to_measure_as_it_read_those_it_trained_on(tiny_model_folder: Path, tmp_path: Path):
    """They fit two shapes, of which the run's setting names the one that would not be taken by itself."""
    plain = [{"prompt": f"Order {number}?", "completion": "It is on its way."} for number in range(8)]
    other = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    both = [row | {"messages": other} for row in plain]
    settings = QUICK | {"folder": tmp_path, "format": "prompt_completion", "max_steps": 1}
    run = tt.train(tiny_model_folder, data=both, **settings)

    loss = run.evaluate(both).heldout_loss

    assert loss == run.evaluate(plain).heldout_loss
    assert loss != tt.evaluate(run.save(tmp_path / "whole"), data=both, **QUICK).heldout_loss


def test_the_same_rows_are_the_same_source_whatever_holds_them(rows: list[dict[str, Any]]):
    class Table:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(rows)

    assert keep_rows(rows, "data") == keep_rows(Table(), "data") == keep_rows((row for row in rows), "data")


def test_a_file_and_the_same_rows_in_memory_give_the_same_examples(
    rows: list[dict[str, Any]], tiny_model_folder: Path, tmp_path: Path
):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    of_file, of_memory = (tt.load_data(data, str(tiny_model_folder)) for data in (path, rows))
    assert [example.ids.tolist() for example in of_file] == [example.ids.tolist() for example in of_memory]
    assert [str(example.address) for example in of_memory][:2] == ["<data>[0]", "<data>[1]"]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": b"bytes", "completion": "a"}, "prompt is a builtins.bytes"),
        ({"prompt": "a", "completion": {"deep": [1, {2: "x"}]}}, "completion.deep[1] has the key 2"),
        ("a text", "a str"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_address(row: Any, found: str):
    with pytest.raises(DataError) as caught:
        keep_rows([{"prompt": "a", "completion": "b"}, row], "data")
    assert caught.value.where == "<data>[1]"
    assert found in str(caught.value.found)


def test_a_bad_row_in_memory_is_dropped_with_its_address(rows: list[dict[str, Any]], tiny_model_folder: Path):
    examples = tt.load_data([rows[0], {"messages": float("nan")}, rows[1]], str(tiny_model_folder))
    assert len(examples) == 2
    (drops,) = examples.ledger.drop_samples.values()
    assert str(drops[0].address) == "<data>[1]"


@pytest.mark.parametrize("data", [[], {"train": [1]}, 5])
def test_what_is_no_data_is_refused(data: Any, tiny_model_folder: Path):
    with pytest.raises(DataError, match=r"dict|No rows|no data"):
        tt.train(tiny_model_folder, data=data)


@pytest.mark.parametrize(
    ("keywords", "near"),
    [
        ({"lr": 1.0}, "train.learning_rate"),
        ({"lora": {"rnk": 2}}, "lora.rank"),
        ({"pack.max_seq_len": 2}, "pack.max_seq_length"),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_nearest(keywords: dict[str, Any], near: str):
    with pytest.raises(ConfigError, match=r"tutelage.train") as caught:
        tt.train("model", data="rows.jsonl", **keywords)
    assert near in str(caught.value)


def test_a_run_opens_again_and_answers(run: tt.Run):
    again = tt.Run(run.folder)
    assert again.result == run.result
    messages = [{"role": "user", "content": "Hello"}]
    assert again.generate(messages, max_new_tokens=5) == run.generate([tt.Message("user", "Hello")], max_new_tokens=5)
    assert run.generate(["Hello", "Bye"], max_new_tokens=5)[0] == run.generate("Hello", max_new_tokens=5)


def test_evaluating_again_gives_what_the_run_measured(run: tt.Run):
    measured = run.evaluate()
    assert measured.heldout_loss == pytest.approx(run.result["after"]["heldout_loss"], rel=1e-5)
    assert measured.exact_match == run.result["after"]["exact_match"]
    assert tt.evaluate(run.folder, tiny_rows(0, 4)).heldout_loss == pytest.approx(measured.heldout_loss, rel=1e-5)


def test_an_exported_run_is_a_plain_folder_with_the_same_replies(run: tt.Run, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    folder = run.save(tmp_path / "out")
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    AutoModelForCausalLM.from_pretrained(folder)
    exported = tt.evaluate(folder, tiny_rows(0, 4), precision="fp32")
    assert exported.heldout_loss == pytest.approx(run.evaluate(tiny_rows(0, 4)).heldout_loss, rel=1e-4)
    with pytest.raises(ConfigError, match="holds something"):
        run.export(folder)


def test_the_trainer_has_the_losses_of_a_run(run: tt.Run, rows: list[dict[str, Any]], tiny_model_folder: Path):
    lines = [line for line in read_record(run.folder / "record.jsonl")[0] if "loss" in line]
    trainer = tt.Trainer(tiny_model_folder, **QUICK)
    examples = tt.load_data(rows, str(tiny_model_folder))
    losses, norms = [], []
    for line, batch in zip(lines, examples.batches(batch_size=8, epochs=2.0), strict=True):
        losses.append(trainer.forward_backward(batch))
        norms.append(trainer.optim_step(learning_rate=line["learning_rate"]))
        if len(losses) == 1:
            trainer.sample("Hello", max_new_tokens=2)  # which must leave no trace in the training
    assert losses == [line["loss"] for line in lines]
    assert norms == [line["gradient_norm"] for line in lines]


def test_a_run_of_rows_in_memory_is_resumed_and_replayed(
    rows: list[dict[str, Any]], tiny_model_folder: Path, tmp_path: Path, stop_after: Callable[[int | None], None]
):
    keywords = {"name": "again", "folder": tmp_path / "runs", "epochs": 2, "batch_size": 8, **QUICK}
    stop_after(2)
    stopped = tt.train(tiny_model_folder, data=rows, **keywords)
    assert not stopped.result
    assert "resume=True" in repr(stopped)
    stop_after(None)
    assert tt.train(tiny_model_folder, data=rows, resume=True, **keywords).result["steps"] == 6
    from tutelage.train.replay import replay

    assert replay(str(tmp_path / "runs" / "again"), tt.api.run.screen_here()).difference is None


def test_rows_that_are_gone_from_the_cache_are_asked_for(tiny_model_folder: Path):
    with pytest.raises(SourceNotFoundError, match="handed in") as caught:
        tt.load_data("<data:0123456789abcdef>", str(tiny_model_folder))
    assert "resume=True" in str(caught.value.fix)


def test_runs_without_a_name_get_one_each(run: tt.Run):
    from tutelage.api.actions import _free_name

    assert run.folder.name == "run"
    assert _free_name(run.folder.parent) == "run-2"


def test_every_error_of_ours_is_a_tutelage_error():
    assert issubclass(ConfigError, TutelageError)


def test_the_example_of_a_loop_is_short_and_runs(tiny_model_folder: Path, rows: list[dict[str, Any]], tmp_path: Path):
    example, data = ROOT / "examples" / "own_loop.py", tmp_path / "rows.jsonl"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--model", str(tiny_model_folder), "--data", str(data), "--steps", "2", "--out", str(tmp_path / "own")]
    done = subprocess.run(
        [sys.executable, str(example), *options], capture_output=True, text=True, check=True, timeout=120
    )
    assert "step 2/2  loss" in done.stdout
    assert (tmp_path / "own" / "adapter_model.safetensors").is_file()


def test_the_notebook_runs_from_top_to_bottom(
    tiny_model_folder: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *tiny_rows(24, 48)]), encoding="utf-8")
    for name, value in {"MODEL": tiny_model_folder, "DATA": data, "STEPS": 2, "RUNS": tmp_path / "runs"}.items():
        monkeypatch.setenv(f"TUTELAGE_EXAMPLE_{name}", str(value))
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("<table>" in output.get("data", {}).get("text/html", "") for output in shown)
    progress = "".join(output.get("text", "") for output in shown if output.output_type == "stream")
    assert "step 2/2  loss" in progress
    assert len(progress.splitlines()) < 60
