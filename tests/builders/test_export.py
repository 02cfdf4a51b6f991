"""A run leaves the house: what other tools load is proven to be the run's model, and what is not leaves nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage import Run, config
from tutelage.builders.dial_model import save_dial_model
from tutelage.builders.export import whole_model
from tutelage.builders.export.planned import planned
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.export.targets import export_run
from tutelage.errors import ConfigError, EndpointError, SaveError, SourceNotFoundError
from tutelage.export.card import ModelCard, card_text, public_name
from tutelage.export.expected_tensors import rounded_by_chance
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run

SHORT = ("train.max_steps=6", "evaluate.task=", "evaluate.general=", "evaluate.divergence_prompts=0")
LORA = "model.method=lora"
RUNS = {
    "lora": (LORA, "lora.rank=4", "lora.alpha=6"),
    "rslora": (LORA, "lora.rslora=true"),
    "dora": (LORA, "lora.dora=true"),
    "pissa": (LORA, "lora.init=pissa"),
    "whole": (LORA, 'lora.modules_to_save=["embed_tokens"]', 'model.add_tokens=["<call>", "<done>"]'),
    "ends": (LORA, 'lora.target_modules=["embed_tokens", "q_proj"]'),
    "full": ("model.method=full",),
    "prompt": ("model.method=prompt", "prompt.tokens=3"),
}
WHOLE = [name for name in RUNS if name != "prompt"]
WEIGHTS = "model.safetensors"
CARD_OF_BASE = "---\nlicense: tiny-terms\n---\n"


@pytest.fixture(scope="module")
def runs(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny model, in fp32."""
    folder = tmp_path_factory.mktemp("export")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in RUNS.items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    return folder / "runs"


@pytest.fixture
def export(runs: Path, tmp_path: Path, quiet_screen: Screen) -> Callable[..., Exported]:
    """Exports a run by its name to `tmp_path / "out"`, compared on 6 prompts."""

    def go(name: str, to: str = "hf", **chosen: Any) -> Exported:
        folder = runs / name
        request = ExportRequest(folder, run_files.read_settings(folder), tmp_path / "out", quiet_screen, prompts=6)
        return export_run(to, replace(request, **chosen))

    return go


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_model_is_proven(export: Callable[..., Exported], name: str) -> None:
    proof = export(name).facts["proof"]
    assert proof["proven"]
    assert proof["prompts"] == {"held out": 6}
    assert proof["found"]["kl"] < 1e-9
    assert proof["moved"] is None or proof["moved"]["kl"] > 0.01, "the base is another model"


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["dora", "full"])
def test_rounded_weights_are_proven_against_the_noise_of_rounding(
    export: Callable[..., Exported], name: str, dtype: str
) -> None:
    proof = export(name, dtype=dtype).facts["proof"]
    assert proof["proven"]
    assert proof["dtype"] == dtype
    assert 0 < proof["found"]["kl"] < 4 * proof["noise"]["kl"]
    assert proof["same_replies"] + proof["ties"] == 6


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize("name", ["lora", "dora", "full"])
def test_a_value_of_the_dial_is_proven(export: Callable[..., Exported], name: str) -> None:
    assert export(name, dial=0.5).facts["proof"]["found"]["kl"] < 1e-9


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize("name", ["lora", "whole", "prompt"])
def test_the_adapter_alone_is_proven(export: Callable[..., Exported], name: str) -> None:
    exported = export(name, to="adapter")
    assert exported.facts["proof"]["proven"]
    assert not list(exported.path.glob("model*.safetensors")), "the base stays where it is"


def test_a_fresh_process_proves_it_in_pieces_with_each_added_token(
    export: Callable[..., Exported], tmp_path: Path
) -> None:
    """All of it as a user has it: several files of weights, a process of its own, tokens that were added."""
    exported = export("whole", shard_bytes=60_000)
    assert exported.facts["proof"]["proven"]
    assert len(list(exported.path.glob("model-0*.safetensors"))) > 1
    assert not [path for path in exported.path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    tokenizer = AutoTokenizer.from_pretrained(exported.path)
    (call,) = tokenizer.encode("<call>", add_special_tokens=False)
    assert call < AutoModelForCausalLM.from_pretrained(exported.path).get_input_embeddings().weight.shape[0]
    assert json.loads((exported.path / "proof.json").read_text(encoding="utf-8"))["proven"]


@pytest.mark.usefixtures("proof_here")
def test_a_pair_at_a_tied_embedding_is_merged_into_it_alone(export: Callable[..., Exported]) -> None:
    """PEFT adds it to the head as well, which is the same tensor: another model (0.21.2; transformers#45127)."""
    loaded = AutoModelForCausalLM.from_pretrained(export("ends").path)
    assert not loaded.config.tie_word_embeddings
    assert (loaded.lm_head.weight - loaded.model.embed_tokens.weight).abs().max() > 1e-3


@pytest.mark.usefixtures("proof_here")
def test_a_head_that_is_tied_stays_tied(export: Callable[..., Exported]) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(export("lora").path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes, which makes weights of 4 bits, is missing")
@pytest.mark.usefixtures("proof_here")
def test_qlora_is_merged_into_what_its_four_bits_stand_for(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, quiet_screen: Screen
) -> None:
    """A merge that is rounded to 4 bits again erases a weak tune (mlx-tune#15, peft#1043)."""
    run(config.load(tiny_recipe(tmp_path), (*SHORT, "name=qlora", "model.method=qlora")), quiet_screen)
    folder = tmp_path / "runs" / "qlora"
    request = ExportRequest(folder, run_files.read_settings(folder), tmp_path / "out", quiet_screen, prompts=4)
    facts = export_run("hf", request).facts["proof"]
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert facts["found"]["kl"] < 1e-9
    assert 0.05 < max(facts["lost_in_four_bits"].values()) < 0.15, "what 4 bits lose of normal weights"
    assert export_run("adapter", replace(request, out=tmp_path / "adapter")).facts["proof"]["proven"]
    kept = load_file(save_dial_model(folder, 1.0, tmp_path / "kept", screen=quiet_screen) / WEIGHTS)
    written = load_file(tmp_path / "out" / WEIGHTS)
    assert all(torch.equal(kept[name], tensor) for name, tensor in written.items()), "--save-dial is that model, too"


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _scaled(folder: Path) -> None:
    _weights(folder, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].mul_(1.001))


def _weakly_off(folder: Path) -> None:
    """A drift of half of what rounding moves, in one layer: a weak pair that got lost."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        weight = tensors[name].float()
        pair = torch.randn(len(weight), 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, weight.shape[1])
        tensors[name] = (weight + pair * (weight.norm() / pair.norm() * 0.0012)).to(tensors[name].dtype)

    _weights(folder, change)


def _lost_row(folder: Path) -> None:
    _weights(folder, lambda tensors: tensors["model.embed_tokens.weight"][402].zero_())


def _other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("\\n", " "), encoding="utf-8")


def _no_stop(folder: Path) -> None:
    path = folder / "generation_config.json"
    generation = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(generation | {"eos_token_id": 402}), encoding="utf-8")


def _broken(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"no weights")


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_scaled, "model.layers.1.mlp.up_proj: its outputs are off"),
        (_lost_row, "model.embed_tokens.weight: other numbers"),
        (_other_template, "the template makes other ids"),
        (_no_stop, "stops [402], not"),
    ],
)
def test_what_is_another_model_is_named_and_leaves_nothing(
    export: Callable[..., Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    says: str,
) -> None:
    fill = whole_model.fill_whole_folder

    def damaged(request: ExportRequest, folder: Path) -> dict[str, float]:
        lost = fill(request, folder)
        damage(folder)
        return lost

    monkeypatch.setattr(whole_model, "fill_whole_folder", damaged)
    with pytest.raises(SaveError) as caught:
        export("lora")
    assert "not the model that was trained" in str(caught.value)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("proof_here")
def test_a_drift_below_the_rounding_of_bf16_is_named(
    export: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and outputs do not show it: it is smaller than what rounding itself moves there."""
    fill, dtypes = whole_model.fill_whole_folder, {"dtype": "bfloat16"}
    proof = export("lora", **dtypes).facts["proof"]
    assert max(proof["against_rounded"].values()) < 2e-5, "the same sums, rounded once"

    def damaged(request: ExportRequest, folder: Path) -> dict[str, float]:
        lost = fill(request, folder)
        _weakly_off(folder)
        return lost

    monkeypatch.setattr(whole_model, "fill_whole_folder", damaged)
    with pytest.raises(SaveError) as caught:
        export("lora", out=tmp_path / "second", **dtypes)
    found = str(caught.value.found)
    assert found.startswith("model.layers.1.mlp.up_proj: its outputs are off")
    assert found.endswith("is another order of sums"), "nothing else was caught by a limit"


def test_what_cannot_be_loaded_says_so_and_leaves_nothing(
    export: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_model, "fill_whole_folder", lambda _request, folder: _broken(folder) or {})
    with pytest.raises((SaveError, ConfigError, ValueError)):
        export("lora")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "to", "chosen", "says"),
    [
        ("prompt", "hf", {}, "--to adapter"),
        ("full", "adapter", {}, "no adapter"),
        ("lora", "adapter", {"dtype": "bfloat16"}, "--dtype"),
        ("dora", "adapter", {"dial": 0.5}, "magnitudes"),
        ("lora", "hf", {"dial": 0.0}, "base itself"),
        ("lora", "hf", {"push": "you/model"}, "HF_TOKEN"),
        ("lora", "hff", {}, "write --to hf"),
    ],
)
def test_what_cannot_be_written_says_why_before_anything_is_loaded(
    export: Callable[..., Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    to: str,
    chosen: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError) as caught:
        export(name, to=to, **chosen)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(export: Callable[..., Exported], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds something"):
        export("lora")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_nothing(
    export: Callable[..., Exported], tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    with files_at_most(50_000), pytest.raises(SaveError):
        export("lora", prompts=0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_weights_says_how_it_goes_on(runs: Path, tmp_path: Path, quiet_screen: Screen) -> None:
    (tmp_path / "run").mkdir()
    settings = run_files.read_settings(runs / "lora")
    with pytest.raises(SourceNotFoundError, match="no trained weights"):
        export_run("hf", ExportRequest(tmp_path / "run", settings, tmp_path / "out", quiet_screen))


def test_the_plan_has_the_bytes_of_the_weights(runs: Path, tmp_path: Path, quiet_screen: Screen) -> None:
    settings = run_files.read_settings(runs / "lora")
    request = ExportRequest(runs / "lora", settings, tmp_path / "out", quiet_screen, dtype="bfloat16")
    plan = planned("hf", request)
    export_run("hf", replace(request, prompts=0))
    written = (tmp_path / "out" / WEIGHTS).stat().st_size
    assert plan["bytes"] <= written < plan["bytes"] + 10_000
    assert plan["free_bytes"] > 0


class Hub:
    """Stands in for `huggingface_hub.HfApi`."""

    def __init__(self, token: str) -> None:
        self.token = token

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        if repository == "no/entry":
            raise ValueError(f"403 for {self.token}")
        assert private
        assert exist_ok

    def upload_folder(self, *, repo_id: str, folder_path: Path, ignore_patterns: list[str]) -> None:
        uploads[repo_id] = sorted(path.name for path in folder_path.iterdir())


uploads: dict[str, list[str]] = {}


def test_the_folder_is_uploaded_when_asked(
    export: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    uploads.clear()
    export("lora", prompts=0)
    assert uploads == {}
    export("lora", prompts=0, out=tmp_path / "second", push="you/model")
    assert {"README.md", WEIGHTS, "proof.json"} <= set(uploads["you/model"])
    with pytest.raises(EndpointError) as caught:
        export("lora", prompts=0, out=tmp_path / "third", push="no/entry")
    assert "hf_secret" not in str(caught.value)
    texts = [path.read_bytes() for path in (tmp_path / "third").rglob("*") if path.is_file()]
    assert texts
    assert not any(b"hf_secret" in text for text in texts)


def test_the_card_names_data_licenses_and_numbers(export: Callable[..., Exported]) -> None:
    card = (export("lora", prompts=0).path / "README.md").read_text(encoding="utf-8")
    assert "train.jsonl" in card
    assert "held-out loss" in card
    assert WEIGHTS in card
    assert "without a proof" in card
    assert "by LoRA." in card


def test_the_card_has_the_licenses_that_the_settings_state(export: Callable[..., Exported], runs: Path) -> None:
    settings = run_files.read_settings(runs / "lora")
    stated = settings.data.model_copy(update={"licenses": {str(settings.data.train[0]): "tiny-data-terms, NC"}})
    folder = export("lora", prompts=0, settings=settings.model_copy(update={"data": stated})).path
    assert "| train.jsonl | tiny-data-terms, NC, **non-commercial** |" in (folder / "README.md").read_text("utf-8")


def test_no_path_of_a_machine_is_on_the_card(export: Callable[..., Exported], tmp_path: Path) -> None:
    card = (export("lora", prompts=0).path / "README.md").read_text(encoding="utf-8")
    assert "/" + tmp_path.parts[1] + "/" not in card


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/jane/data/rows.jsonl", "rows.jsonl"),
        ("C:\\Users\\jane\\rows.jsonl", "rows.jsonl"),
        ("~/data/rows.jsonl", "rows.jsonl"),
        ("datasets/rows.jsonl", "datasets/rows.jsonl"),
        ("owner/name:train", "owner/name:train"),
    ],
)
def test_of_absolute_paths_the_last_part_is_shown(name: str, shown: str) -> None:
    assert public_name(name) == shown


def test_the_card_puts_non_commercial_data_first_and_runs_nothing() -> None:
    text = card_text(
        ModelCard(
            title="<script>alert(1)</script> [x](javascript:y)",
            base="you/base",
            method="lora",
            form="",
            base_license="gemma [x](javascript:y)",
            license_texts=["LICENSE"],
            notice="Provided <b>under</b> terms",
            licenses={"free": "mit", "unknown": None, "ours|theirs": "cc-by-nc-4.0"},
            data_sha256={},
            settings='a = "```"',
            measures=((), ()),
            notes=(),
            proof=None,
            files_sha256={},
        )
    )
    assert "<script>" not in text
    assert "\\[x\\](javascript" in text, "no link"
    assert "gemma \\[x\\](javascript:y), in full in `LICENSE`. Notice: Provided &lt;b&gt;under" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row for row in rows if "non-commercial" in row] == [rows[2]]
    assert "license_name: non-commercial-data" in text
    assert "````toml" in text


@pytest.mark.parametrize("to", ["hf", "adapter", "dpo-start"])
def test_license_and_notice_of_the_base_go_with_what_is_made_of_it(
    export: Callable[..., Exported], tiny_model_folder: Path, to: str
) -> None:
    """Terms such as Gemma's are passed on with every derivative, and name the notice."""
    texts = {"LICENSE_OF_THE_BASE.html": "<p>terms</p>", "NOTICE": "Provided under terms", "README.md": CARD_OF_BASE}
    try:
        for name, text in texts.items():
            (tiny_model_folder / name).write_text(text, encoding="utf-8")
        folder = export("lora", to=to, prompts=0).path
    finally:
        for name in texts:
            (tiny_model_folder / name).unlink()
    assert (folder / "LICENSE_OF_THE_BASE.html").read_text(encoding="utf-8") == texts["LICENSE_OF_THE_BASE.html"]
    assert (folder / "NOTICE").read_text(encoding="utf-8") == texts["NOTICE"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "tiny-terms, in full in `LICENSE_OF_THE_BASE.html`" in card
    assert "Notice: Provided under terms" in card


def test_rounding_by_chance_moves_weights_as_far_as_rounding_does() -> None:
    torch.manual_seed(0)
    weight = torch.randn(200_000)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = (weight.to(dtype).float() - weight).norm()
        kept = weight.to(dtype)
        chance = (rounded_by_chance(kept, dtype, seed=0).float() - kept.float()).norm()
        assert chance / rounded == pytest.approx(1, abs=0.05)


def test_from_python_it_is_the_same(runs: Path, tmp_path: Path) -> None:
    folder = Run(runs / "lora").export(tmp_path / "out", to="adapter", prompts=0)
    assert (folder / "proof.json").is_file()
