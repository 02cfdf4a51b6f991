"""Tokens without trained rows: refused where nothing would teach them, with advice that works, and else learned."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.builders.base_model import start_folder
from tutelage.builders.trained_model import open_trained_model
from tutelage.errors import ConfigError, DataError
from tutelage.report.console.progress import Screen
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)"
)
NEW = 403
IDS = torch.arange(3, 40)[None]
SHORT = ("train.max_steps=3", "evaluate.task=", "evaluate.general=", "evaluate.before=false", "model.threads=1")


@pytest.fixture
def grown(tiny_model_folder: Path, tmp_path: Path) -> Callable[[bool], tuple[str, str]]:
    """Overrides for a model with one token more, whose row is the mean of all, and for rows that hold it."""

    def make(tied: bool) -> tuple[str, str]:
        folder, rows = tmp_path / f"grown-{tied}", tmp_path / "rows.jsonl"
        if not folder.is_dir():
            shutil.copytree(tiny_model_folder, folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens([AddedToken("Zyxplo", normalized=False)])
        tokenizer.save(str(folder / "tokenizer.json"))
        assert tokenizer.token_to_id("Zyxplo") == NEW
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, tie_word_embeddings=tied)
        with torch.no_grad():
            for one in {id(x): x for x in (model.lm_head.weight, model.model.embed_tokens.weight)}.values():
                one[NEW:] = one[:NEW].mean(dim=0)
        model.save_pretrained(folder)
        row = {"prompt": "name it", "completion": "Zyxplo"}
        rows.write_text("".join(json.dumps(row) + "\n" for _ in range(8)), encoding="utf-8")
        return f"model.name={folder}", f'data.train=["{rows}"]'

    return make


@pytest.mark.parametrize("tied", [True, False])
def test_r12_in_full_fine_tuning_new_rows_learn_and_a_note_says_so(
    train_tiny: TrainTiny, grown: Callable[[bool], tuple[str, str]], quiet_screen: Screen, tied: bool
) -> None:
    finished = train_tiny(*SHORT, *grown(tied), "model.method=full", "train.epochs=3")

    told = quiet_screen.console.file.getvalue().replace("\n", " ")
    assert "their embedding learns from here on: 'Zyxplo' (id 403, 8 times" in told
    row = load_file(finished.folder / "model" / "model.safetensors")["model.embed_tokens.weight"][NEW]
    given = load_file(Path(config.load(finished.folder / "settings.toml").model.name) / "model.safetensors")
    assert (row - given["model.embed_tokens.weight"][NEW]).abs().max() > 1e-3


@pytest.mark.parametrize("tied", [True, False])
def test_r12_with_lora_the_advice_is_one_that_works(
    train_tiny: TrainTiny, grown: Callable[[bool], tuple[str, str]], tied: bool
) -> None:
    chosen = (*SHORT, *grown(tied), "model.method=lora", "lora.rank=4", "train.epochs=3")
    with pytest.raises(DataError, match="never trained on") as caught:
        train_tiny(*chosen)
    advised = str(caught.value.fix).rpartition("set ")[2].replace(" = ", "=")
    assert advised == (
        'lora.modules_to_save=["embed_tokens"]' if tied else 'lora.modules_to_save=["embed_tokens", "lm_head"]'
    )

    finished = train_tiny(*chosen, advised)

    base = AutoModelForCausalLM.from_pretrained(config.load(finished.folder / "settings.toml").model.name)
    before = base.model.embed_tokens.weight[NEW].clone()
    plain = PeftModel.from_pretrained(base, finished.folder / "adapter").eval()
    opened = open_trained_model(str(finished.folder), tuned=True, base=False, log=lambda _text: None)
    with opened.as_tuned() as tuned:
        said = tuned.eval()(input_ids=IDS).logits
    torch.testing.assert_close(plain(input_ids=IDS).logits, said, atol=1e-5, rtol=0)
    assert (plain.get_input_embeddings().weight[NEW] - before).abs().max() > 1e-3
    assert (plain.get_output_embeddings().weight[NEW] - before).abs().max() > 1e-3
    if tied:
        merged = plain.merge_and_unload()
        assert torch.equal(merged.get_output_embeddings().weight, merged.get_input_embeddings().weight)


def test_r12_a_run_with_modules_trained_whole_resumes_and_is_a_start(
    train_tiny: TrainTiny,
    grown: Callable[[bool], tuple[str, str]],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
) -> None:
    chosen = (
        *SHORT,
        *grown(True),
        "model.method=lora",
        "lora.rank=4",
        "train.epochs=3",
        'lora.modules_to_save=["embed_tokens"]',
    )
    whole = train_tiny(*chosen, where="whole")
    stop_after(1)
    stopped = train_tiny(*chosen, where="stopped")
    stop_after(None)
    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    found, expected = (load_file(one.folder / "adapter" / "adapter_model.safetensors") for one in (resumed, whole))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    second = train_tiny(
        *chosen, f"model.name={whole.folder}", "model.adapter=continue", "lora.modules_to_save=", where="next"
    )
    assert config.load(second.folder / "settings.toml").lora.modules_to_save == ["embed_tokens"]


def test_r12_what_keeps_the_rows_from_learning_is_named(
    train_tiny: TrainTiny, grown: Callable[[bool], tuple[str, str]]
) -> None:
    given = grown(True)
    with pytest.raises(DataError) as frozen:
        train_tiny(*SHORT, *given, "model.method=full", 'model.freeze=["embed_tokens"]')
    assert frozen.value.fix == 'take "embed_tokens" out of model.freeze'
    with pytest.raises(DataError) as prompted:
        train_tiny(*SHORT, *given, "model.method=prompt")
    assert prompted.value.fix == 'set model.method = "full"'
    for wrong, advice in (("embed_token", "embed_tokens"), ("lm_head", "embed_tokens")):
        with pytest.raises(ConfigError, match="trained whole") as caught:
            train_tiny(*SHORT, "model.method=lora", f'lora.modules_to_save=["{wrong}"]')
        assert caught.value.fix == f'write "{advice}" instead'


@pytest.mark.parametrize("start", ["mean", "pieces"])
def test_r12_added_tokens_get_rows_and_learn(train_tiny: TrainTiny, tmp_path: Path, start: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "name it", "completion": "Zyxplo"}\n' * 8, encoding="utf-8")
    asked = (*SHORT, f'data.train=["{rows}"]', 'model.add_tokens=["Zyxplo"]', f"model.add_tokens_start={start}")
    lora = ("model.method=lora", "lora.rank=4", "train.epochs=3")
    with pytest.raises(DataError, match="never trained on") as caught:
        train_tiny(*asked, *lora)
    advised = str(caught.value.fix).rpartition("set ")[2].replace(" = ", "=")

    finished = train_tiny(*asked, *lora, advised)

    settings = config.load(finished.folder / "settings.toml")
    before = load_file(Path(settings.model.name) / "model.safetensors")["model.embed_tokens.weight"]
    start_row = load_file(start_folder(settings.model) / "model.safetensors")["model.embed_tokens.weight"][NEW]
    pieces = Tokenizer.from_file(str(Path(settings.model.name) / "tokenizer.json")).encode("Zyxplo").ids
    torch.testing.assert_close(start_row, before[pieces].mean(0) if start == "pieces" else before.mean(0))
    saved = load_file(finished.folder / "adapter" / "adapter_model.safetensors")
    assert (saved["base_model.model.model.embed_tokens.weight"][NEW] - start_row).abs().max() > 1e-3
    assert Tokenizer.from_file(str(finished.folder / "adapter" / "tokenizer.json")).token_to_id("Zyxplo") == NEW
    opened = open_trained_model(str(finished.folder), tuned=True, base=True, log=lambda _text: None)
    with opened.as_tuned() as tuned:
        assert tuned.eval()(input_ids=torch.tensor([[NEW]])).logits.isfinite().all()
    with pytest.raises(ConfigError, match="is one already"):
        train_tiny(*SHORT, 'model.add_tokens=["<|im_end|>"]')


def test_r12_an_added_token_in_prompts_alone_has_to_learn_as_well(train_tiny: TrainTiny, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Zyxplo it", "completion": "name"}\n' * 8, encoding="utf-8")
    asked = (*SHORT, f'data.train=["{rows}"]', 'model.add_tokens=["Zyxplo"]', "model.method=lora", "lora.rank=4")
    with pytest.raises(DataError, match="never trained on") as caught:
        train_tiny(*asked)
    assert f"'Zyxplo' (id {NEW}, " in str(caught.value.found)
    advised = str(caught.value.fix).rpartition("set ")[2].replace(" = ", "=")

    finished = train_tiny(*asked, "train.epochs=3", advised)

    settings = config.load(finished.folder / "settings.toml")
    start_row = load_file(start_folder(settings.model) / "model.safetensors")["model.embed_tokens.weight"][NEW]
    saved = load_file(finished.folder / "adapter" / "adapter_model.safetensors")
    assert (saved["base_model.model.model.embed_tokens.weight"][NEW] - start_row).abs().max() > 1e-3


@needs_bitsandbytes
@pytest.mark.parametrize("tied", [True, False])
def test_r12_modules_are_trained_whole_beside_4_bits(
    train_tiny: TrainTiny, grown: Callable[[bool], tuple[str, str]], tied: bool
) -> None:
    names = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    whole = f"lora.modules_to_save={json.dumps(names)}"

    finished = train_tiny(*SHORT, *grown(tied), "model.method=qlora", "lora.rank=4", "train.epochs=3", whole)

    given = AutoModelForCausalLM.from_pretrained(config.load(finished.folder / "settings.toml").model.name)
    opened = open_trained_model(str(finished.folder), tuned=True, base=False, log=lambda _text: None)
    with opened.as_tuned() as tuned:
        assert tuned.eval()(input_ids=torch.tensor([[NEW]])).logits.isfinite().all()
        embedding, head = tuned.get_input_embeddings().weight.float(), tuned.get_output_embeddings().weight.float()
    assert torch.equal(embedding, head) == tied
    for learned, before in ((embedding, given.get_input_embeddings()), (head, given.get_output_embeddings())):
        assert (learned[NEW] - before.weight[NEW]).abs().max() > 1e-3
    saved = load_file(finished.folder / "adapter" / "adapter_model.safetensors")
    assert torch.equal(saved["base_model.model.model.embed_tokens.weight"].float(), embedding)


def test_r12_modules_trained_whole_are_not_cut_apart(train_tiny: TrainTiny, tmp_path: Path) -> None:
    """Where it is left to the run, each process keeps them whole (`test_replicated`)."""
    with pytest.raises(ConfigError, match="embed_tokens does not work on a model that is sharded") as caught:
        train_tiny(*SHORT, "model.method=lora", 'lora.modules_to_save=["embed_tokens"]', "model.parallel=shard")

    assert caught.value.expected == 'model.parallel = "replicate", or lora.modules_to_save = []'
    assert not (tmp_path / "home" / "runs").exists()
