"""The harness's interface with requests that stand in for its own; witnesses are plain forwards and transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tutelage.errors import ConfigError, TemplateError
from tutelage.evaluate.harness.language_model import HarnessModel, rolling_windows
from tutelage.generate.requested_texts import cut_at, requested_texts
from tutelage.generate.requests import Request, Sampling
from tutelage.model.architecture import architecture_of
from tutelage.model.attention.packed import use_generation_attention
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Message

HISTORY = [{"role": "user", "content": "My sister asks for 2 lamps."}]


def asked(*args: Any) -> Any:
    """Has what the harness's `Instance` has of a request."""
    return SimpleNamespace(args=args)


def renderer_in(folder: Path) -> Renderer:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


def harness_model(folder: Path, **how: Any) -> HarnessModel:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return HarnessModel(model, renderer_in(folder), architecture_of(model), batch_prompts=4, **how)


@pytest.fixture
def witness(tiny_model_folder: Path) -> Callable[[list[int], list[int]], tuple[float, bool]]:
    """(given, text) -> its log-probability and whether it is the likeliest, by transformers' own forward."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="eager").eval()

    def scored(given: list[int], text: list[int]) -> tuple[float, bool]:
        ids = torch.tensor([[*given, *text]])
        with torch.no_grad():
            logprobs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        places = range(len(given) - 1, len(given) + len(text) - 1)
        total = sum(float(logprobs[place, token]) for place, token in zip(places, text, strict=True))
        return total, all(int(logprobs[place].argmax()) == token for place, token in zip(places, text, strict=True))

    return scored


def test_likelihoods_are_those_of_the_whole_text_divided_behind_the_context(
    tiny_model_folder: Path, witness: Callable[..., tuple[float, bool]]
) -> None:
    tokenizer = renderer_in(tiny_model_folder).tokenizer
    pairs = [("What is it?", " the blue lamp"), ("What is it? ", "an order"), ("", "two tickets"), ("a", "")]
    found = harness_model(tiny_model_folder).loglikelihood([asked(*pair) for pair in pairs])

    for (context, text), (total, is_likeliest) in zip(pairs[:2], found, strict=False):
        given = tokenizer.encode([context.rstrip()])[0]
        whole = tokenizer.encode([context + text])[0]
        assert (total, is_likeliest) == (
            pytest.approx(witness(given, whole[len(given) :])[0], abs=1e-4),
            witness(given, whole[len(given) :])[1],
        )
    alone = witness([tokenizer.stop_id], tokenizer.encode(["two tickets"])[0])
    assert found[2][0] == pytest.approx(alone[0], abs=1e-4), "without a BOS the end token stands before a text"
    assert found[3] == (0.0, True)


def test_the_likeliest_token_is_said_to_be_and_is_what_a_greedy_reply_begins_with(tiny_model_folder: Path) -> None:
    model, tokenizer = harness_model(tiny_model_folder), renderer_in(tiny_model_folder).tokenizer
    ids = tokenizer.encode(["Who is it?"])[0]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        best, second = plain(torch.tensor([ids])).logits[0, -1].topk(2).indices.tolist()
    likeliest, other = model._scored([(ids, [best]), (ids, [second])])
    assert (likeliest.is_likeliest, other.is_likeliest) == (True, False)
    (reply,) = model.generate_until([asked("Who is it?", {"until": [], "max_gen_toks": 1})])
    assert reply == tokenizer.decode([best])


def test_with_the_template_a_prompt_is_what_a_server_would_feed(tiny_model_folder: Path) -> None:
    renderer, model = renderer_in(tiny_model_folder), harness_model(tiny_model_folder)
    text = model.apply_chat_template(HISTORY)
    assert text == "<|im_start|>user\nMy sister asks for 2 lamps.<|im_end|>\n<|im_start|>assistant\n"
    served = renderer.serve([Message("user", HISTORY[0]["content"])])
    assert model._request(text, {}).prompt.tolist() == served.tolist()
    begun = model.apply_chat_template([*HISTORY, {"role": "assistant", "content": "It is"}], False)
    assert begun == text + "It is"
    assert model.chat_template(True) == renderer.template.source
    assert len(model.tokenizer_name) == 64


def test_a_template_that_writes_its_bos_gets_no_second_one(
    write_model_folder: Callable[..., Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers.processors import TemplateProcessing

    folder = write_model_folder(tmp_path / "bos", bos="<|endoftext|>")
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    bos = fast.token_to_id("<|endoftext|>")
    fast.post_processor = TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)])
    fast.save(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    asking = HarnessModel(model, renderer_in(folder), architecture_of(model), batch_prompts=2)

    assert asking._request("a", {}).prompt.tolist()[:1] == [bos], "a plain text is encoded as a document"
    assert asking._request("<|endoftext|>a", {}).prompt.tolist().count(bos) == 1
    text = asking.apply_chat_template(HISTORY)
    assert bos not in asking._request(text, {}).prompt.tolist(), "this template writes none"


@pytest.mark.parametrize(("tokens", "most"), [(10, 4), (8, 4), (3, 4), (1, 4), (0, 4), (9, 1)])
def test_each_token_of_a_rolling_text_is_scored_once_behind_as_much_as_fits(tokens: int, most: int) -> None:
    windows = list(rolling_windows(list(range(tokens)), 99, most))
    assert [token for _, text in windows for token in text] == list(range(tokens))
    for number, (given, text) in enumerate(windows):
        assert len(given) + len(text) <= most + 1
        assert given == ([99] if number == 0 else list(range(text[0] - len(given), text[0])))
    if tokens > most:
        assert len(windows[-1][0]) + len(windows[-1][1]) == most + 1, "the last is given all that fits"


def test_rolling_likelihoods_are_sums_over_windows(
    tiny_model_folder: Path, witness: Callable[..., tuple[float, bool]]
) -> None:
    model = harness_model(tiny_model_folder)
    model._most_tokens = 8
    tokenizer = renderer_in(tiny_model_folder).tokenizer
    text = "The customer asks for the blue lamp. Nobody cannot find order 4711."
    found = model.loglikelihood_rolling([asked(text), asked("a")])
    ids = tokenizer.encode([text])[0]
    assert len(ids) > 8
    expected = sum(witness(*window)[0] for window in rolling_windows(ids, tokenizer.stop_id, 8))
    assert found[0] == pytest.approx(expected, abs=1e-4)
    assert found[1] == pytest.approx(witness([tokenizer.stop_id], tokenizer.encode(["a"])[0])[0], abs=1e-4)


def test_texts_that_are_too_long_lose_their_beginning(tiny_model_folder: Path) -> None:
    model = harness_model(tiny_model_folder)
    model._most_tokens = 6
    prompt, text = model._pair("The customer asks for the blue lamp and for order 4711", " please")
    assert len(prompt) + len(text) == 7, "the last token is only predicted"
    assert len(model._request("The customer asks for the blue lamp", {"max_gen_toks": 4}).prompt) == 2
    with pytest.raises(ConfigError, match="longer replies"):
        model._request("a", {"max_gen_toks": 6})


def test_settings_of_a_reply_are_read_as_the_harness_reads_them(tiny_model_folder: Path) -> None:
    said: list[str] = []
    model = harness_model(tiny_model_folder, seed=5, log=said.append)
    request = model._request("a", {"until": "\n", "max_new_tokens": 7, "temperature": 0.7, "top_p": 0.9, "top_k": None})
    assert (request.max_new_tokens, request.stop_strings) == (7, ("\n",))
    assert request.sampling == Sampling(temperature=0.7, top_p=0.9, seed=5)
    greedy = model._request("a", {"until": ["b", ""], "do_sample": False, "temperature": 0.7, "num_beams": 3})
    assert (greedy.max_new_tokens, greedy.stop_strings, greedy.sampling) == (256, ("b",), Sampling())
    model._request("a", {"num_beams": 3})
    assert len(said) == 1
    assert "num_beams" in said[0]


def test_replies_end_at_texts_and_are_those_of_each_alone(tiny_model_folder: Path) -> None:
    model = harness_model(tiny_model_folder)
    contexts = ["Who?", "What is it, please?", "My sister asks for 2 lamps."]
    (whole,) = model.generate_until([asked(contexts[0], {"max_gen_toks": 12})])
    stop = [letter for letter in whole if letter.isascii() and letter.isalpha()][-1]
    found = model.generate_until([asked(context, {"until": [stop], "max_gen_toks": 12}) for context in contexts])
    assert found[0] == whole.split(stop)[0] != whole
    assert found == [
        model.generate_until([asked(context, {"until": [stop], "max_gen_toks": 12})])[0] for context in contexts
    ]


def test_models_that_the_engine_does_not_fit_are_cut_at_texts_afterwards(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.generate import requested_texts as module
    from tutelage.generate.batch_check import Batching

    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    use_generation_attention(model)
    tokenizer = renderer_in(tiny_model_folder).tokenizer
    prompts = [renderer_in(tiny_model_folder).serve([Message("user", said)]) for said in ("Who?", "What is it?", "a")]
    requests = [Request(prompt, 8 + number % 2, stop_strings=("e", "o")) for number, prompt in enumerate(prompts)]
    expected = requested_texts(model, tokenizer, requests, batch_prompts=2)
    monkeypatch.setattr(module, "answered_together", lambda *_, **__: Batching("padded"))
    assert requested_texts(model, tokenizer, requests, batch_prompts=2) == expected
    with pytest.raises(ConfigError, match="most likely reply"):
        requested_texts(model, tokenizer, [Request(prompts[0], 3, Sampling(temperature=1.0))], batch_prompts=2)


def test_what_stands_before_the_first_of_several_texts_is_kept() -> None:
    assert cut_at("abcdef", ("e", "c")) == "ab"
    assert cut_at("abc", ("x",)) == "abc"


def test_what_a_template_or_the_house_does_not_know_is_an_error(tiny_model_folder: Path) -> None:
    model = harness_model(tiny_model_folder)
    with pytest.raises(ConfigError, match="role"):
        model.apply_chat_template([{"role": "judge", "content": "a"}])
    refusing = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}a<|im_end|>"
    tokenizer = renderer_in(tiny_model_folder).tokenizer
    model._renderer = Renderer(tokenizer, ChatTemplate(refusing, named_tokens=tokenizer.named_tokens))
    with pytest.raises(TemplateError, match="does not accept"):
        model.apply_chat_template([{"role": "system", "content": "a"}, *HISTORY])
