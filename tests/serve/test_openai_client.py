"""OpenAI's own client, unchanged, gets what it asks for: whole replies, streams, choices, log-probabilities, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.serve.conftest import NAME
from tests.support.own_forward import own_choices, own_logits
from tests.support.served import Running

torch.set_num_threads(1)
ASKED = [{"role": "user", "content": "My sister asks for the blue lamp."}]
GREEDY = {"model": NAME, "messages": ASKED, "temperature": 0, "max_tokens": 12}
ROUNDING = 0.06
"""Of log-probabilities, as the model is served in bf16 where the processor has it."""
PICTURE = {"type": "image_url", "image_url": {"url": "data:x"}}
WITH_IDS = {"extra_body": {"return_token_ids": True}}


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa").eval()


def prompt_of(server: Running) -> Any:
    from tutelage.types import Message

    return server.service.models[NAME].renderer.serve([Message("user", ASKED[0]["content"])])


def test_a_greedy_reply_is_that_of_the_models_own_forward(client: Any, server: Running, model: Any) -> None:
    reply = client.chat.completions.create(**GREEDY, **WITH_IDS)

    prompt, (choice,) = prompt_of(server), reply.choices
    assert reply.prompt_token_ids == prompt.tolist()
    assert len(choice.token_ids) == reply.usage.completion_tokens == 12
    assert choice.token_ids == own_choices(model, prompt, choice.token_ids)
    assert choice.message.content == server.service.models[NAME].renderer.tokenizer.decode(choice.token_ids)
    assert (choice.finish_reason, reply.model, reply.object) == ("length", NAME, "chat.completion")
    assert reply.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize("more", [{}, {"stop": "e"}, {"stop": ["qqq", "a"], "n": 3, "temperature": 1.0, "seed": 3}])
def test_a_stream_says_what_the_whole_reply_says(client: Any, more: dict[str, Any]) -> None:
    asked = GREEDY | more
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    texts, finish = {}, {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            finish |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert finish == {choice.index: choice.finish_reason for choice in whole.choices}
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 4
    assert all("e" not in text for text in texts.values()) or more.get("stop") != "e"


def test_a_seed_repeats_what_was_drawn_and_its_absence_draws_anew(client: Any) -> None:
    def drawn(**more: Any) -> list[str]:
        return [choice.message.content for choice in client.chat.completions.create(**drawing, **more).choices]

    drawing = GREEDY | {"temperature": 1.5, "n": 3}
    first = drawn(seed=11)
    assert first == drawn(seed=11)
    assert len(set(first)) == 3
    assert drawn(seed=-12) != first
    assert drawn() != drawn()


def test_log_probabilities_are_those_of_the_models_own_forward(client: Any, server: Running, model: Any) -> None:
    reply = client.chat.completions.create(**GREEDY, **WITH_IDS, logprobs=True, top_logprobs=4)
    ids, content = reply.choices[0].token_ids, reply.choices[0].logprobs.content

    expected = own_logits(model, prompt_of(server), ids).log_softmax(1)
    assert [entry.logprob for entry in content] == pytest.approx(
        [float(expected[place, token]) for place, token in enumerate(ids)], abs=ROUNDING
    )
    assert [[top.logprob for top in entry.top_logprobs] for entry in content] == [
        pytest.approx(step, abs=ROUNDING) for step in expected.topk(4).values.tolist()
    ]
    streamed = []
    for chunk in client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=4, stream=True):
        for choice in chunk.choices:
            streamed += choice.logprobs.content if choice.logprobs else []
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_completions_go_on_with_a_text_or_with_ids(client: Any, server: Running, model: Any) -> None:
    tokenizer = server.service.models[NAME].renderer.tokenizer
    texts = ["The customer asks", "Nobody"]
    reply = client.completions.create(
        model=NAME, prompt=texts, max_tokens=6, temperature=0, n=2, logprobs=2, **WITH_IDS
    )

    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    for choice in reply.choices:
        ids = tokenizer.encode([texts[choice.index // 2]])[0]
        assert choice.prompt_token_ids == ids
        assert choice.token_ids == own_choices(model, torch.tensor(ids).numpy(), choice.token_ids)
        assert "".join(choice.logprobs.tokens) == choice.text
        assert all(len(step) == 2 for step in choice.logprobs.top_logprobs)
    by_ids = client.completions.create(
        model=NAME, prompt=[tokenizer.encode([text])[0] for text in texts], max_tokens=6, temperature=0, echo=True
    )
    assert [choice.text for choice in by_ids.choices] == [
        text + reply.choices[2 * number].text for number, text in enumerate(texts)
    ]
    streamed = client.completions.create(model=NAME, prompt=texts[0], max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == reply.choices[0].text


def test_models_are_listed_and_another_is_not_there(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError) as met:
        client.chat.completions.create(**GREEDY | {"model": "gpt-9"})
    assert (met.value.code, met.value.param, met.value.type) == ("model_not_found", "model", "invalid_request_error")
    assert NAME in met.value.message


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        ({"extra_body": {"frobnicate": 1}}, "frobnicate", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": "two"}, "n", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"max_tokens": 100_000}, "max_tokens", None),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", None),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages", None),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages", None),
        ({"messages": [{"role": "user", "content": "the lamp " * 900}]}, "messages", "context_length_exceeded"),
        ({"stop": ""}, "stop", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"logit_bias": {"x": 1}}, "logit_bias", None),
        ({"logit_bias": {"-1": 1}}, "logit_bias", None),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_in_the_words_of_the_api(
    client: Any, changed: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as met:
        client.chat.completions.create(**(GREEDY | changed))
    assert (met.value.param, met.value.code, met.value.type) == (param, code, "invalid_request_error")
    assert len(met.value.message) > 10


def test_biases_and_penalties_change_what_is_taken(client: Any) -> None:
    plain = client.chat.completions.create(**GREEDY, **WITH_IDS).choices[0].token_ids
    for more in ({"logit_bias": {str(plain[0]): -100}}, {"frequency_penalty": 2.0, "presence_penalty": 2.0}):
        assert client.chat.completions.create(**GREEDY, **more, **WITH_IDS).choices[0].token_ids != plain
    forced = client.chat.completions.create(**GREEDY, logit_bias={"70": 100}, **WITH_IDS)
    assert forced.choices[0].token_ids == [70] * 12
