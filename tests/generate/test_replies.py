"""Replies in batches equal replies one by one through transformers alone; order kept, stop tokens removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from tutelage.errors import ConfigError
from tutelage.evaluate import suite as measure
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.suite import EvalSuite, run_suite
from tutelage.generate.batch_check import Batching, batches_of, together
from tutelage.generate.replies import answered_together, greedy_replies, replies_to, streamed_reply
from tutelage.generate.requests import GREEDY, EndedReply, Sampling
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import NAME, use_generation_attention, use_packed_attention
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Address, Message, TokenIds

torch.set_num_threads(1)


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_model_folder)


@pytest.fixture
def renderer(tokenizer: Tokenizer) -> Renderer:
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    """A fresh fp32 copy of the tiny model, attending as served."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa")


@pytest.fixture
def prompts(tokenizer: Tokenizer) -> list[TokenIds]:
    random = np.random.default_rng(2)
    return [random.integers(0, 400, length).astype(np.int32) for length in (9, 31, 2, 17, 17, 5, 40, 1)]


def texts_of(*asked: Any, **how: Any) -> list[str]:
    """What `greedy_replies` gives, without what ended it."""
    return [reply.text for reply in greedy_replies(*asked, **how)]


def one_by_one(model: Any, prompt: TokenIds, stops: list[int], limit: int) -> list[int]:
    """Greedy ids, stop token included, from plain forwards over the whole text so far."""
    ids = prompt.tolist()
    for _ in range(limit):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


def likely_stops(model: Any, prompts: list[TokenIds]) -> list[int]:
    """Tokens that this model writes early for some prompts and never for others, to act as stop tokens."""
    written = [one_by_one(model, prompt, [], 20) for prompt in prompts]
    common = sorted({token for reply in written for token in reply[3:12]})
    return common[:2]


@pytest.mark.parametrize("batch_prompts", [1, 3, 8])
def test_batches_equal_one_by_one(
    model: Any, tokenizer: Tokenizer, prompts: list[TokenIds], batch_prompts: int
) -> None:
    stops = likely_stops(model, prompts)
    stopping = Tokenizer(
        tokenizer.fast, tokenizer.named_tokens, frozenset(stops), tokenizer.vocabulary_size, None, tokenizer.folder
    )
    expected = [one_by_one(model, prompt, stops, 20) for prompt in prompts]
    assert len({len(one) for one in expected}) > 2, "replies of several lengths make the test worth its name"
    finished: list[int] = []

    told: dict[int, EndedReply] = {}

    found = greedy_replies(
        model,
        stopping,
        prompts,
        max_new_tokens=20,
        batch_prompts=batch_prompts,
        done=finished.append,
        on_reply=told.__setitem__,
    )

    written = [[token for token in one if token not in stops] for one in expected]
    assert [reply.text for reply in found] == [tokenizer.decode(ids) for ids in written]
    assert [reply.tokens for reply in found] == [len(ids) for ids in written]
    assert [reply.ended_itself for reply in found] == [one[-1] in stops for one in expected]
    assert {reply.ended_by for reply in found} == {"stop_token", "length"}
    assert [told[place] for place in range(len(prompts))] == found
    assert sum(finished) == len(prompts)
    assert max(finished) <= batch_prompts


def test_replies_equal_transformers_own_generation(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    found = texts_of(model, tokenizer, prompts, max_new_tokens=12, batch_prompts=4)

    for prompt, reply in zip(prompts, found, strict=True):
        ids = torch.from_numpy(prompt).long()[None]
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        written = [one for one in output[0, len(prompt) :].tolist() if one not in tokenizer.stop_ids]
        assert reply == tokenizer.decode(written)


def test_order_of_prompts_is_kept(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    forwards = texts_of(model, tokenizer, prompts, max_new_tokens=6, batch_prompts=3)
    backwards = texts_of(model, tokenizer, prompts[::-1], max_new_tokens=6, batch_prompts=3)

    assert len(set(forwards)) > 3
    assert backwards[::-1] == forwards


def test_sampling_settings_of_the_checkpoint_do_not_make_replies_random(
    model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]
) -> None:
    plain = texts_of(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, top_k=0, eos_token_id=401)

    assert texts_of(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == plain


def test_adapters_take_part_in_generation(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    base = texts_of(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)
    adapted, _ = add_lora(model, rank=4, alpha=8, dropout=0.5, targets="all-linear")
    adapted.train()
    assert texts_of(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == base, "no dropout either"
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)

    tuned = texts_of(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)

    assert tuned != base
    with adapted.disable_adapter():
        assert texts_of(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == base


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.5, seed=3)])
def test_a_streamed_reply_is_the_same_reply(
    model: Any, renderer: Renderer, tokenizer: Tokenizer, sampling: Sampling
) -> None:
    messages = [Message("user", "hello there")]
    tokens: list[int] = []
    (expected,) = replies_to(model, renderer, [messages], max_new_tokens=8, sampling=sampling)

    reply = streamed_reply(
        model, tokenizer, renderer.serve(messages), max_new_tokens=8, on_token=tokens.append, sampling=sampling
    )

    assert reply == expected == tokenizer.decode(tokens)
    assert tokens
    assert model.config._attn_implementation == "sdpa"


def test_drawn_replies_differ_by_seed_and_end_at_a_stop_string(model: Any, renderer: Renderer) -> None:
    messages = [Message("user", "hello there")]

    def drawn(seed: int, stop_strings: tuple[str, ...] = ()) -> str:
        sampling = Sampling(temperature=2.0, seed=seed)
        return replies_to(model, renderer, [messages], max_new_tokens=12, sampling=sampling, stop_strings=stop_strings)[
            0
        ]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    middle = drawn(1)[4:7]
    assert drawn(1, (middle,)) == drawn(1)[: drawn(1).index(middle)]


def test_a_model_that_the_engine_does_not_fit_draws_nothing(taking_padding_in: Any, renderer: Renderer) -> None:
    with pytest.raises(ConfigError, match="most likely reply"):
        replies_to(
            taking_padding_in,
            renderer,
            [[Message("user", "hello")]],
            max_new_tokens=2,
            sampling=Sampling(temperature=1.0),
        )


def test_an_exam_with_nothing_to_ask_measures_nothing(model: Any, renderer: Renderer) -> None:
    use_packed_attention(model)

    eval_result = run_suite(model, renderer, EvalSuite((), (), (), max_new_tokens=4, batch_prompts=2))

    assert (eval_result.measures.exact_match, eval_result.measures.heldout_loss, eval_result.measures.general) == (
        None,
    ) * 3
    assert model.config._attn_implementation == NAME


def test_no_prompts_no_replies(model: Any, tokenizer: Tokenizer) -> None:
    use_generation_attention(model)

    assert texts_of(model, tokenizer, [], max_new_tokens=4, batch_prompts=2) == []


@pytest.fixture
def taking_padding_in(tokenizer: Tokenizer) -> Any:
    """A model with a state that runs over a row, padding included."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        "recurrent_gemma",
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        lru_width=32,
        attention_window_size=64,
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    use_generation_attention(model)
    return model


def test_r28_a_model_that_takes_padding_in_answers_as_it_does_alone(
    taking_padding_in: Any, tokenizer: Tokenizer, prompts: list[TokenIds]
) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 8}
    alone = texts_of(taking_padding_in, tokenizer, prompts, batch_prompts=1, **asked)
    padded = texts_of(taking_padding_in, tokenizer, prompts, batch_prompts=8, batching=Batching("padded"), **asked)

    assert padded != alone, "else this model shows nothing"
    assert texts_of(taking_padding_in, tokenizer, prompts, batch_prompts=8, **asked) == alone


def test_r28_what_a_model_may_answer_together_is_tried_and_said(
    taking_padding_in: Any, model: Any, tokenizer: Tokenizer, renderer: Renderer, prompts: list[TokenIds]
) -> None:
    items = tuple(GeneralItem(Address("made", 1), "", text, ()) for text in ("one", "two words", "three of them"))
    said: list[str] = []
    for one in (model, taking_padding_in):
        eval_suite = EvalSuite((), (), items, max_new_tokens=2, batch_prompts=3)
        run_suite(one, renderer, eval_suite, log=said.append, attention="own")

    assert answered_together(model, tokenizer).kind == "packed"
    assert answered_together(taking_padding_in, tokenizer).kind == "equal"
    assert len(said) == 1
    assert "only prompts of equal length" in said[0]


def test_r28_batches_hold_what_may_be_answered_together(prompts: list[TokenIds]) -> None:
    lengths = {
        which: [
            [len(prompts[place]) for place in batch] for batch in batches_of(prompts, batch_prompts=3, batching=which)
        ]
        for which in ("padded", "equal", "alone")
    }
    assert lengths["padded"] == [[40, 31, 17], [17, 9, 5], [2, 1]]
    assert lengths["equal"] == [[40], [31], [17, 17], [9], [5], [2], [1]]
    assert lengths["alone"] == [[40], [31], [17], [17], [9], [5], [2], [1]]


def test_r28_a_model_that_answers_no_batch_is_asked_one_at_a_time() -> None:
    def answer(asked: Any) -> list[torch.Tensor]:
        if len(asked) > 1:
            raise RuntimeError("shape of the cache")
        return [torch.ones(2, 5)]

    assert together(answer, vocabulary=5, dtype=torch.float32) == "alone"


@pytest.mark.parametrize("prompts_at_once", [1, 2])
def test_r28_memory_that_runs_out_says_nothing_of_how_a_model_answers(prompts_at_once: int) -> None:
    def answer(asked: Any) -> list[torch.Tensor]:
        if len(asked) >= prompts_at_once:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [torch.ones(2, 5)]

    with pytest.raises(torch.OutOfMemoryError):
        together(answer, vocabulary=5, dtype=torch.float32)


def test_r28_memory_that_runs_out_in_the_trial_is_said_and_prompts_are_answered_alone(
    model: Any, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(*_given: Any, **_named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(measure, "answered_together", short_of_memory)
    items = tuple(GeneralItem(Address("made", 1), "", text, ()) for text in ("one", "two words"))
    said: list[str] = []

    eval_result = run_suite(
        model, renderer, EvalSuite((), (), items, max_new_tokens=2, batch_prompts=3), log=said.append, attention="own"
    )

    assert said == ["Memory ran out as a batch of prompts was tried: they are answered one at a time"]
    assert len(eval_result.general_replies) == 2
