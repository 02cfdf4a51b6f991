"""Each refusal names a way out, and only one that was tried."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.support.serving_oracle import CHATML, LATEST_REASONING, dropped, pair, proven, remarks, talk
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.render.remedies import ROWS_WITH_ALL_REMEDIES
from tutelage.types import Address, Conversation, Drop, Message, ToolCall

THINKS = talk(Message("user", "2+3?"), Message("assistant", "5", reasoning="add them"))
PLAIN = talk(*pair("2+3?", "5"))
OPENED = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<think>\\n' -}}{%- endif")
SWITCHED = LATEST_REASONING.replace(
    "assistant\\n' -}}{%- endif",
    "assistant\\n' -}}{%- if not NAME -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- endif",
)
INSIDE = "('<think>\\n' if message['role'] == 'assistant' and loop.last else '')"
Build = Callable[..., Renderer]


@pytest.fixture
def with_template(chatml_folder: Path) -> Build:
    tokenizer = Tokenizer.load(chatml_folder)

    def build(template: str, *, arguments: dict[str, Any] | None = None, **options: Any) -> Renderer:
        given = ChatTemplate(template, named_tokens=tokenizer.named_tokens, arguments=arguments)
        return Renderer(tokenizer, given, **options)

    return build


def way(renderer: Renderer, conversation: Conversation) -> str:
    """The way out that a drop names; empty where it names none."""
    return dropped(renderer, conversation).detail.partition("; the turn is proven with ")[2]


@pytest.mark.parametrize("name", ["enable_thinking", "thinking", "deep_mode"])
def test_m6_the_argument_that_opens_reasoning_is_named_as_the_template_calls_it(
    with_template: Build, name: str
) -> None:
    template = SWITCHED.replace("NAME", name)
    drop = dropped(with_template(template), THINKS)
    assert drop.reason == "reasoning_not_in_reply"
    assert drop.detail.endswith(f"render.template_arguments = {{{name} = true}}")
    assert len(proven(with_template(template, arguments={name: True}), THINKS)) == 1


def test_m6_an_argument_that_does_not_help_is_not_named(with_template: Build) -> None:
    template = CHATML + "{%- if enable_thinking -%}{{- 'x' -}}{%- endif -%}"
    assert "enable_thinking" not in way(with_template(template), THINKS)


def test_m6_without_a_field_the_content_is_the_way(with_template: Build) -> None:
    renderer = with_template(CHATML)
    assert way(renderer, THINKS) == "the reasoning in the content, as <think>...</think>"
    proven(renderer, talk(Message("user", "2+3?"), Message("assistant", "<think>\nadd them\n</think>\n\n5")))


def test_m6_a_field_that_the_template_reads_is_named(with_template: Build) -> None:
    renderer = with_template(LATEST_REASONING, reasoning_field="thinking")
    assert way(renderer, THINKS) == 'render.reasoning_field = "reasoning_content"'


def test_m6_the_policy_for_turns_without_reasoning_is_named(with_template: Build) -> None:
    assert way(with_template(OPENED), PLAIN) == 'render.empty_reasoning = "close"'
    judge = OPENED.replace("<think>", "<judge>")
    assert way(with_template(judge), PLAIN) == 'render.empty_reasoning = "close"'


def test_m6_a_missing_stop_names_the_policy_and_the_templates_own_end(with_template: Build) -> None:
    eot = CHATML.replace("<|im_end|>", "<|endoftext|>")
    drop = dropped(with_template(eot, missing_stop="drop"), PLAIN)
    assert 'render.stop_tokens = ["<|endoftext|>"]' in drop.detail
    assert 'render.missing_stop = "append"' in drop.detail
    assert 'render.stop_tokens = ["<|endoftext|>"]' in remarks(with_template(eot), PLAIN)["stop_appended"]
    (named,) = re.findall(r"render\.stop_tokens = (\[.*?\])", drop.detail)
    assert json.loads(named) == ["<|endoftext|>"]
    assert "render.stop_tokens" not in remarks(with_template(CHATML.replace("<|im_end|>", "")), PLAIN)["stop_appended"]


def test_m6_a_spelled_control_token_names_its_policy(with_template: Build) -> None:
    assert way(with_template(CHATML), talk(*pair("a <|im_end|>", "b"))) == 'render.control_tokens = "escape"'


def test_m6_where_nothing_helps_nothing_is_named(with_template: Build) -> None:
    shortened = CHATML.replace("message['content']", "message['content'][:3]")
    assert way(with_template(shortened), talk(*pair("a", "too long"))) == ""


def test_m6_a_split_says_its_cause(with_template: Build) -> None:
    two = talk(*pair("a", "b"), *pair("c", "d"))
    appended = remarks(with_template(CHATML.replace("<|im_end|>", "")), two)["split"]
    assert "the stop token that is appended" in appended
    thinks = talk(Message("user", "a"), Message("assistant", "b", reasoning="so"), *pair("c", "d"))
    assert (
        "the template writes a turn otherwise once it is history"
        in remarks(with_template(LATEST_REASONING), thinks)["split"]
    )


def test_m7_where_words_are_written_inside_the_opened_block_the_policy_closes_it(with_template: Build) -> None:
    inside = OPENED.replace("message['content']", f"({INSIDE} + message['content'])")
    renderer = with_template(inside)
    assert dropped(renderer, PLAIN).reason == "no_reasoning"
    assert way(renderer, PLAIN) == 'render.empty_reasoning = "close"'
    assert len(proven(with_template(inside, empty_reasoning="close"), PLAIN)) == 1
    assert len(proven(renderer, talk(*pair("2+3?", "</think>\n\n5")))) == 1


def test_m7_a_template_that_takes_the_closing_tag_out_is_not_told_so(with_template: Build) -> None:
    inside = OPENED.replace("message['content']", f"({INSIDE} + message['content'].replace('</think>', ''))")
    assert way(with_template(inside), PLAIN) == ""


CALLER = Message("assistant", "Let me.", tool_calls=(ToolCall("find", {"at": {"x": True}}),))
WITH_CALLS = CHATML.replace(
    "message['content'] + '<|im_end|>\\n' -}}",
    "(message['content'] or '') -}}{%- for c in message['tool_calls'] or [] -%}{{- c.function.name -}}"
    "{%- for k, v in c.function.arguments.items() -%}{{- ' ' + k + '=' + v | string -}}{%- endfor -%}{%- endfor -%}"
    "{{- '<|im_end|>\\n' -}}",
)


def test_m6_arguments_that_are_printed_as_python_are_text_in_the_data(with_template: Build) -> None:
    renderer = with_template(WITH_CALLS)
    assert way(renderer, talk(Message("user", "Where?"), CALLER)) == "nested arguments as JSON text"
    flat = structs.replace(CALLER, tool_calls=(ToolCall("find", {"at": '{"x": true}'}),))
    assert len(proven(renderer, talk(Message("user", "Where?"), flat))) == 1


def test_m6_replies_in_a_row_that_the_prompt_goes_on_with_are_said_at_once(with_template: Build) -> None:
    goes_on = CHATML.replace(
        "assistant\\n' -}}", "assistant\\n' + (messages[-1].content if messages[-1].role == 'assistant' else '') -}}"
    )
    renderer = with_template(goes_on)
    row = talk(*pair("Say.", "It is deep."), Message("assistant", "And flooded."))
    assert way(renderer, row) == "the reply before it in the same message"
    proven(renderer, talk(*pair("Say.", "It is deep.\n\nAnd flooded.")))


def test_m6_words_beside_calls_that_a_template_moves_behind_results_are_named(with_template: Build) -> None:
    late = (
        "{%- set ns = namespace(late='') -%}{%- for m in messages -%}"
        "{%- if m.role == 'tool' -%}{{- '<r>' + m.content + '</r>' + ns.late -}}"
        "{%- elif m.tool_calls -%}{{- '<|im_start|>assistant\\n<c>' + m.tool_calls[0].function.name + ' at=y</c>' -}}"
        "{%- set ns.late = m.content or '' -%}{%- if loop.last -%}{{- ns.late + '<|im_end|>' -}}{%- endif -%}"
        "{%- elif m.role == 'assistant' and ns.late -%}{{- m.content + '<|im_end|>' -}}"
        "{%- else -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' -}}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_end|>' if ns.late else '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    call = Message("assistant", "Let me.", tool_calls=(ToolCall("find", {"at": "y"}),))
    row = talk(Message("user", "Where?"), call, Message("tool", "found"), Message("assistant", "There."))
    renderer = with_template(late, turns="last")
    assert way(renderer, row) == "no words beside the calls before it"


def test_m6_reasoning_that_has_no_place_at_all_is_to_be_left_out(with_template: Build) -> None:
    closed = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<think>\\n\\n</think>\\n\\n' -}}{%- endif")
    assert way(with_template(closed), talk(*pair("2+3?", "<think>add</think>5"))) == "its reasoning left out"
    assert len(proven(with_template(closed), PLAIN)) == 1


def test_m6_a_stop_inside_a_turn_names_the_token_that_must_not_be_one(
    tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    """A template that ends the reasoning as it ends the turn."""
    thought = "(message['reasoning_content'] + '<|im_end|>' if message['reasoning_content'] else '')"
    template = CHATML.replace("message['role'] + '\\n' +", f"message['role'] + '\\n' + {thought} +")

    def renderer(folder: Path, stop: list[str]) -> Renderer:
        tokenizer = Tokenizer.load(write_model_folder(folder, template=template, stop=stop))
        return Renderer(tokenizer, ChatTemplate(template, named_tokens=tokenizer.named_tokens))

    both = renderer(tmp_path / "both", ["<|im_end|>", "<|endoftext|>"])
    assert dropped(both, THINKS).reason == "stop_inside_reply"
    assert way(both, THINKS) == "'<|im_end|>' left out of eos_token_id in generation_config.json"
    assert len(proven(renderer(tmp_path / "fewer", ["<|endoftext|>"]), THINKS)) == 1
    assert way(renderer(tmp_path / "single", ["<|im_end|>"]), THINKS) == ""
    spelled = talk(*pair("2+3?", "5 <|im_end|>"))
    assert way(replace(both, control_tokens="keep"), spelled) == ""


def test_rows_that_drop_for_one_reason_do_not_each_try_every_way(
    with_template: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = with_template(SWITCHED.replace("NAME", "zzz"))
    tried: list[int] = []
    prove = Renderer._prove_without_remedies

    def counting(given: Renderer, rows: list[Conversation]) -> list[Any]:
        tried.append(len(rows))
        return prove(given, rows)

    monkeypatch.setattr(Renderer, "_prove_without_remedies", counting)
    rows = [structs.replace(THINKS, address=Address("rows.jsonl", number)) for number in range(200)]
    outcomes = renderer.prove(rows)
    ways = {
        outcome.detail.partition("; the turn is proven with ")[2] for outcome in outcomes if isinstance(outcome, Drop)
    }
    assert ways == {"render.template_arguments = {zzz = true}"}
    assert sum(tried) <= 200 + 200 + 10 * ROWS_WITH_ALL_REMEDIES

    tried.clear()
    shortened = CHATML.replace("message['content']", "message['content'][:3]")
    switches = "".join(f"{{%- if deep_{n} -%}}{{{{- 'x' -}}}}{{%- endif -%}}" for n in range(9))
    rows = [talk(*pair("a", "too long")) for _ in range(200)]
    outcomes = with_template(shortened + switches).prove(rows)
    assert all(isinstance(outcome, Drop) and "proven with" not in outcome.detail for outcome in outcomes)
    assert sum(tried) <= 200 + 20 * ROWS_WITH_ALL_REMEDIES


def test_a_way_out_of_an_earlier_row_is_tried_before_it_is_said_of_another(with_template: Build) -> None:
    renderer = with_template(SWITCHED.replace("NAME", "zzz"))
    spelled = talk(Message("user", "2+3?"), Message("assistant", "5", reasoning="<|im_end|>"))
    kept = replace(renderer, control_tokens="keep")
    outcomes = kept.prove([THINKS] * 20 + [spelled])
    assert isinstance(outcomes[-1], Drop)
    assert "proven with render.template_arguments" not in outcomes[-1].detail
