"""vLLM's replies beside our engine's, on a stand-in that has its public signatures; vLLM itself was never run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.cli.test_train import Tutelage, home, tutelage
from tests.evaluate.harness.test_language_model import renderer_in
from tests.support.vllm_stand_in import LLM, vllm_stand_in
from tutelage.builders.vllm_replies import require_answerable
from tutelage.errors import ConfigError, DependencyError, EngineError
from tutelage.generate.replies import greedy_replies
from tutelage.generate.requests import Request, Sampling
from tutelage.generate.vllm_engine import PORTION, VllmEngine, require_vllm
from tutelage.model.adapters.per_token import PEFT_BASE
from tutelage.model.attention.packed import use_generation_attention
from tutelage.runs import folder as run_files
from tutelage.types import Message, TokenIds

__all__ = ["home", "tutelage", "vllm_stand_in"]  # fixtures
torch.set_num_threads(1)


@pytest.fixture
def prompts(tiny_model_folder: Path) -> list[TokenIds]:
    said = ("Who?", "What is it, please?", "My sister asks for 2 lamps.")
    return [renderer_in(tiny_model_folder).serve([Message("user", words)]) for words in said]


def engine_on(folder: Path, **how: Any) -> VllmEngine:
    return VllmEngine(folder, renderer_in(folder).tokenizer, precision="fp32", **how)


def test_greedy_replies_are_those_of_our_engine(
    vllm_stand_in: list[LLM], tiny_model_folder: Path, prompts: list[TokenIds]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    use_generation_attention(model)
    tokenizer = renderer_in(tiny_model_folder).tokenizer
    done: list[int] = []
    found = engine_on(tiny_model_folder).greedy_replies(prompts, max_new_tokens=12, done=done.append)
    assert found == greedy_replies(model, tokenizer, prompts, max_new_tokens=12, batch_prompts=4)
    assert done == [3]
    (made,) = vllm_stand_in
    assert made.asked == [(3, False)]
    assert made.options["generation_config"] == "vllm", "nothing of the model's own sampling settings"


def test_stop_tokens_and_texts_end_a_reply_and_are_left_out(
    vllm_stand_in: list[LLM], tiny_model_folder: Path, prompts: list[TokenIds]
) -> None:
    engine = engine_on(tiny_model_folder)
    (whole,) = engine.generate([Request(prompts[0], 12)])
    letter = next(letter for letter in whole.text[1:] if letter.isascii() and letter.isalpha())
    (cut,) = engine.generate([Request(prompts[0], 12, stop_strings=(letter,))])
    assert (cut.text, cut.ended_by) == (whole.text[: whole.text.index(letter)], "stop_string")
    engine._tokenizer = replace(engine._tokenizer, stop_ids=frozenset({whole.ids[3]}))
    (stopped,) = engine.generate([Request(prompts[0], 12)])
    first = whole.ids.index(whole.ids[3])
    assert (stopped.ids, stopped.ended_by) == (whole.ids[:first], "stop_token")
    assert whole.ended_by == "length"


def test_draws_have_the_seed_the_samples_and_the_logprobs_that_were_asked_for(
    vllm_stand_in: list[LLM], tiny_model_folder: Path, prompts: list[TokenIds]
) -> None:
    engine = engine_on(tiny_model_folder)
    sampling = Sampling(temperature=0.8, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.1, seed=3)
    params = engine._params(Request(prompts[0], 4, sampling, samples=2, stop_strings=("x",), logprobs=True))
    assert (params.n, params.temperature, params.top_k, params.top_p, params.min_p) == (2, 0.8, 5, 0.9, 0.1)
    assert (params.repetition_penalty, params.seed, params.stop, params.logprobs) == (1.1, 3, ["x"], 0)
    assert params.ignore_eos
    assert engine._params(Request(prompts[0], 4)).seed is None, "a greedy reply draws nothing"
    found = list(engine.generate([Request(prompts[0], 4, sampling, samples=2, logprobs=True)]))
    assert [(one.request, one.sample) for one in found] == [(0, 0), (0, 1)]
    assert all(len(one.logprobs) == len(one.ids) and max(one.logprobs) <= 0 for one in found)
    ids, drawn = engine.drawn_replies(prompts, max_new_tokens=5, seed=1)
    assert drawn
    assert ids == engine.drawn_replies(prompts, max_new_tokens=5, seed=1)[0]
    assert ids != engine.drawn_replies(prompts, max_new_tokens=5, seed=2)[0]


def test_requests_are_handed_over_in_portions(
    vllm_stand_in: list[LLM], tiny_model_folder: Path, prompts: list[TokenIds], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.generate.vllm_engine.PORTION", 2)
    assert PORTION > 2
    found = list(engine_on(tiny_model_folder).generate([Request(prompt, 2) for prompt in prompts]))
    assert [one.request for one in found] == [0, 1, 2]
    assert vllm_stand_in[0].asked == [(2, False), (1, False)]


def test_each_request_has_its_adapter(
    vllm_stand_in: list[LLM], home: Path, tiny_model_folder: Path, prompts: list[TokenIds]
) -> None:
    adapter = home / "runs" / "tiny" / "adapter"
    engine = engine_on(tiny_model_folder, adapters={"tuned": adapter}, largest_rank=9)
    options = vllm_stand_in[0].options
    assert (options["enable_lora"], options["max_lora_rank"], options["max_loras"]) == (True, 16, 1)
    names = (None, PEFT_BASE, "tuned")
    first, base, named = engine.generate([Request(prompts[2], 12, adapter=name) for name in names])
    assert first.text == named.text != base.text
    with pytest.raises(ConfigError, match="no such adapter"):
        list(engine.generate([Request(prompts[0], 2, adapter="other")]))
    with pytest.raises(ConfigError, match="no room for an adapter"):
        engine_on(tiny_model_folder, adapters={"tuned": adapter}, largest_rank=513)


def test_a_missing_package_or_gpu_is_said_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="not installed") as missing:
        require_vllm()
    assert "pip install vllm" in str(missing.value.fix)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("tutelage.generate.vllm_engine.has_gpu", lambda: False)
    with pytest.raises(EngineError, match="there is none") as no_gpu:
        require_vllm()
    assert "pip install vllm" in str(no_gpu.value.fix)


@pytest.mark.parametrize("run", ["tiny", "whole"])
@pytest.mark.parametrize("base", [[], ["--base"]])
def test_evaluate_has_the_figures_of_our_own_engine(
    vllm_stand_in: list[LLM], tutelage: Tutelage, home: Path, run: str, base: list[str]
) -> None:
    folder = str(home / "runs" / run)
    code, out, err = tutelage("evaluate", folder, *base, "--json")
    assert code == 0, err
    assert not vllm_stand_in
    code, by_vllm, err = tutelage("evaluate", folder, *base, "--engine", "vllm", "--json")
    assert code == 0, err
    assert json.loads(by_vllm) == json.loads(out)
    assert len(vllm_stand_in) == 1
    assert sum(count for count, _ in vllm_stand_in[0].asked) == 6


def test_the_command_says_what_is_missing_before_a_model_is_loaded(tutelage: Tutelage, home: Path) -> None:
    code, _, err = tutelage("evaluate", str(home / "runs" / "tiny"), "--engine", "vllm")
    assert code == 1
    assert "pip install vllm" in err
    assert "Asking" not in err
    code, _, err = tutelage("evaluate", str(home / "runs" / "tiny"), "--engine", "vllm", "--dial", "0.5")
    assert code == 1
    assert "contradict" in err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"trainable_token_indices": [4]}, "rows of tokens"),
    ],
)
def test_adapters_that_vllm_refuses_are_refused_first(
    vllm_stand_in: list[LLM], home: Path, tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    settings = run_files.read_settings(home / "runs" / "tiny")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    own = json.loads((home / "runs" / "tiny" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(own | changed), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot answer") as caught:
        require_answerable(tmp_path, settings)
    assert says in str(caught.value)
    prompt_tuned = settings.model_copy(update={"model": settings.model.model_copy(update={"method": "prompt"})})
    with pytest.raises(ConfigError, match="cannot answer"):
        require_answerable(tmp_path, prompt_tuned)
