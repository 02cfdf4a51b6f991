"""Multiple choice by likelihood: the ids, the four ways to weigh them beside the model's own forward, and bad rows."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.render.test_published import with_chatml
from tutelage.errors import DataError
from tutelage.evaluate.choice_items import ChoiceItem, read_choices
from tutelage.evaluate.choice_replies import answer_only_replies, weighed_replies
from tutelage.evaluate.choice_summary import choice_measure
from tutelage.evaluate.multiple_choice import (
    above_chance,
    agreement,
    chance_level,
    chosen_rightly,
    score_choices,
    weighed,
)
from tutelage.model.architecture import architecture_of
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.report.likelihoods import choice_sentences
from tutelage.runs.multiple_choice import WAYS, ChoiceScores, choice_measure_in
from tutelage.types import Address, Message

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material"
QASC, TOKENIZER = MATERIAL / "data/flan_cot_qasc.tsv", MATERIAL / "tokenizers/torchtune.tokenizer.json"
THINKING = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif -%}
{{ message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""
SPACED = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' %}{{ 'Q: ' + message['content'] + '\\nA:' }}
{%- else %}{{ ' ' + message['content'] + '<|im_end|>' }}{% endif -%}
{%- endfor -%}
"""


def question(*choices: str, answer: int = 0, prompt: str = "What does my sister return?") -> ChoiceItem:
    return ChoiceItem(Address("general.jsonl", 1), "", (Message("user", prompt),), choices, answer)


def renderer_in(folder: Path) -> Renderer:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


@pytest.fixture
def renderer(tiny_model_folder: Path) -> Renderer:
    return renderer_in(tiny_model_folder)


ITEMS = [
    question("the blue lamp", "two tickets, please", "a refund?"),
    question("order 4711", "the manual", "Übung", "日本", answer=2, prompt="Nobody has lost what?"),
    question("1", "10", "11", answer=1, prompt="How many tickets?"),
]


def test_prompt_and_choice_are_the_ids_of_the_rendered_whole(renderer: Renderer) -> None:
    for item, replies in zip(ITEMS, weighed_replies(renderer, ITEMS), strict=True):
        for choice, reply in zip(item.choices, replies, strict=True):
            text = f"<|im_start|>user\n{item.messages[0].content}<|im_end|>\n<|im_start|>assistant\n{choice}"
            end = "<|im_end|>" if item.counts_the_end else ""
            (whole,) = renderer.tokenizer.encode([text + end])
            assert [*reply.prompt, *reply.ids] == whole
            assert np.array_equal(reply.prompt, renderer.serve(item.messages))


def test_the_end_counts_only_where_one_choice_begins_another(renderer: Renderer) -> None:
    assert [item.counts_the_end for item in ITEMS] == [False, False, True]
    stop = renderer.tokenizer.stop_id
    ends = [[reply.ids[-1] == stop for reply in replies] for replies in weighed_replies(renderer, ITEMS)]
    assert ends == [[False] * 3, [False] * 4, [True] * 3]


def test_a_space_that_the_template_writes_belongs_to_the_choice_it_merges_with(
    tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    spaced = renderer_in(write_model_folder(tmp_path / "spaced", template=SPACED))
    item = question("the lamp", "\u00e9")

    (lamp, accent) = weighed_replies(spaced, [item])[0]

    prompt = f"Q: {item.messages[0].content}\nA:"
    for reply, choice in ((lamp, " the lamp"), (accent, " \u00e9")):
        assert [*reply.prompt, *reply.ids] == spaced.tokenizer.encode([prompt + choice])[0]
        # all choices are weighed behind the same prompt, though of one the space is a token of its own
        assert spaced.tokenizer.decode(reply.prompt.tolist()) == prompt
        assert spaced.tokenizer.decode(reply.ids.tolist()) == choice


def test_what_the_template_writes_before_every_reply_is_not_weighed(
    tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    thinking = renderer_in(write_model_folder(tmp_path / "thinking", template=THINKING))

    replies = weighed_replies(thinking, [question("think", "the manual")])[0]

    for reply, choice in zip(replies, ("think", "the manual"), strict=True):
        assert thinking.tokenizer.decode(reply.ids.tolist()) == choice
        assert thinking.tokenizer.decode(reply.prompt.tolist()).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_choice_that_spells_a_control_token_is_refused_with_its_row(renderer: Renderer) -> None:
    with pytest.raises(DataError, match="cannot be written as a reply") as caught:
        weighed_replies(renderer, [question("a<|im_end|>b", "c")])
    assert caught.value.where == "general.jsonl:1"


def own_logprobs(model: Any, prompt: list[int], reply: list[int]) -> list[float]:
    """Token by token: each after all before it, in a forward of its own."""
    found = []
    for place, token in enumerate(reply):
        ids = torch.tensor([prompt + reply[:place]])
        with torch.no_grad():
            found.append(float(model(input_ids=ids).logits[0, -1].float().log_softmax(-1)[token]))
    return found


def test_scores_are_those_of_the_models_own_forward(renderer: Renderer, tiny_model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
    alone_prompt = renderer.serve([Message("user", "Answer:")]).tolist()
    expected = []
    for item in ITEMS:
        prompt = renderer.serve(item.messages).tolist()
        for choice in item.choices:
            ids = renderer.tokenizer.encode([choice + ("<|im_end|>" if item.counts_the_end else "")])[0]
            total, alone = (math.fsum(own_logprobs(model, before, ids)) for before in (prompt, alone_prompt))
            expected.append((total, total / len(ids), total / len(choice.encode("utf-8")), total - alone))
    finished: list[int] = []

    scores = score_choices(model, renderer, ITEMS, architecture_of(model), done=finished.append)

    found = [
        choice
        for item, item_scores in zip(ITEMS, scores, strict=True)
        for choice in zip(*(weighed(item, item_scores)[way] for way in WAYS), strict=True)
    ]
    assert np.allclose(found, expected, atol=2e-4)
    assert sum(finished) == sum(len(item.choices) for item in ITEMS)


def test_the_ways_can_each_choose_another_reply() -> None:
    item = question("a", "bb bb bb", "ccc", "d", answer=0)
    scores = ChoiceScores(
        sums=(-2.0, -2.9, -4.0, -3.0), answer_only=(-1.0, -2.5, -3.5, -5.0), tokens=(1, 3, 5, 1)
    )  # sum: a; per token: ccc (-0.8); per byte: bb (-0.36); answer_only: d (+2)
    chosen = {way: weights.index(max(weights)) for way, weights in weighed(item, scores).items()}

    assert chosen == {"sum": 0, "per_token": 2, "per_byte": 1, "answer_only": 3}
    assert chosen_rightly([item], [scores]) == {
        "sum": [True], "per_token": [False], "per_byte": [False], "answer_only": [False],
    }  # fmt: skip
    assert agreement([item], [scores]) == 0.0
    same = ChoiceScores((-1.0, -9.0, -9.0, -9.0), (-9.0, -1.0, -1.0, -1.0), (1, 1, 1, 1))
    assert agreement([item, item], [scores, same]) == 0.5


def test_a_tie_is_no_right_answer_and_neither_is_a_number_that_is_none() -> None:
    item = question("a", "b")
    tied = ChoiceScores((-1.0, -1.0), (-2.0, -2.0), (1, 1))
    undefined = ChoiceScores((math.nan, -1.0), (math.nan, -1.0), (1, 1))

    assert set(map(tuple, chosen_rightly([item, item], [tied, undefined]).values())) == {(False, False)}


def test_each_topic_has_its_own_shares_and_few_questions_are_none() -> None:
    def item(topic: str) -> ChoiceItem:
        return replace(question("a", "b"), topic=topic)

    right, wrong = ChoiceScores((-1.0, -2.0), (-1.0, -1.0), (1, 1)), ChoiceScores((-2.0, -1.0), (-1.0, -1.0), (1, 1))
    items = [*[item("towns")] * 10, *[item("sums")] * 12, *[item("few")] * 3]
    measure = choice_measure(items, [wrong] * 25, [*[right] * 10, *[wrong] * 15])
    assert measure is not None
    assert {name: (found.items, found.before["sum"], found.after["sum"]) for name, found in measure.topics.items()} == {
        "towns": (10, 0.0, 1.0), "sums": (12, 0.0, 0.0),
    }  # fmt: skip
    assert measure.topics["towns"].shares["sum"].change is not None
    assert measure.after["sum"] == 0.4
    saved = {"multiple_choice": json.loads(json.dumps(asdict(measure)))}
    assert choice_measure_in(saved) == measure
    said = choice_sentences(measure)
    assert len(said) == 3
    assert said[1].startswith("  towns: Multiple choice, 10 questions")


def test_chance_is_that_of_each_item() -> None:
    items = [question("a", "b"), question("a", "b", "c", "d")]

    assert chance_level(items) == 0.375
    assert above_chance(0.375, 0.375) == 0.0
    assert above_chance(1.0, 0.375) == 1.0
    assert above_chance(0.25, 0.5) == -0.5


def write(folder: Path, *rows: Any) -> str:
    path = folder / "general.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


GOOD = {"prompt": "2 + 2?", "choices": ["4", "5"], "answer": 0}


def test_rows_with_choices_are_told_by_their_key(tmp_path: Path) -> None:
    spoken = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    path = write(
        tmp_path,
        {"prompt": "Hi", "checks": [{"kind": "plain_text"}]},
        GOOD | {"topic": "sums", "id": 7},
        "",
        {"messages": spoken, "choices": [" five", "four\n"], "answer": "four"},
        "not JSON, which the reader of checks refuses",
    )

    first, second = read_choices(path)

    assert (str(first.address), first.topic, first.id, first.answer) == (f"{path}:2", "sums", "7", 0)
    assert second.messages == (Message("system", "Be brief."), Message("user", "2 + 2?"))
    assert (second.choices, second.answer, str(second.address)) == (("five", "four"), 1, f"{path}:4")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (GOOD | {"answer": 2}, "from 0 to 1"),
        (GOOD | {"answer": -1}, "from 0 to 1"),
        (GOOD | {"answer": "6"}, "none of the choices"),
        (GOOD | {"answer": True}, "answer"),
        (GOOD | {"choices": ["4"]}, "choices"),
        (GOOD | {"choices": ["4", "4 "]}, "the same"),
        (GOOD | {"choices": ["4", "  "]}, "empty"),
        (GOOD | {"choices": "45"}, "choices"),
        (GOOD | {"messages": [{"role": "user", "content": "2 + 2?"}]}, "one of prompt and messages"),
        ({"choices": ["4", "5"], "answer": 0}, "one of prompt and messages"),
        ({"messages": [{"role": "system", "content": "Hi"}], "choices": ["4", "5"], "answer": 0}, "user's"),
    ],
)
def test_bad_rows_are_refused_with_their_address(tmp_path: Path, row: Any, found: str) -> None:
    path = write(tmp_path, GOOD, row)

    with pytest.raises(DataError) as caught:
        read_choices(path)

    assert caught.value.where == f"{path}:2"
    assert found in str(caught.value.found)


@pytest.mark.skipif(not (QASC.is_file() and TOKENIZER.is_file()), reason="the published questions are not here")
def test_published_questions_on_a_published_tokenizer(tmp_path: Path) -> None:
    published = renderer_in(with_chatml(TOKENIZER, tmp_path / "published"))
    rows = []
    for text, letter, *_ in list(csv.reader(QASC.open(encoding="utf-8"), delimiter="\t"))[:60]:
        asked, *options = re.split(r"\\n- \([A-H]\) ", text)
        rows.append(
            {"prompt": asked.removesuffix("\\nOptions:"), "choices": options, "answer": "ABCDEFGH".index(letter[1])}
        )
    items = read_choices(write(tmp_path, *rows))

    replies, alone = weighed_replies(published, items), answer_only_replies(published, items)

    assert len(items) == 60
    assert chance_level(items) == pytest.approx(1 / 8)
    for item, item_replies, item_alone in zip(items, replies, alone, strict=True):
        for choice, reply, bare in zip(item.choices, item_replies, item_alone, strict=True):
            (whole,) = published.tokenizer.encode(
                [published.tokenizer.decode(published.serve(item.messages).tolist()) + choice]
            )
            assert item.counts_the_end or [*reply.prompt, *reply.ids] == whole
            assert np.array_equal(reply.ids, bare.ids)
