"""Prompts and stops that finished turns do not show: blocks of reasoning, greetings, headers, the next turn's token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.serving_oracle import (
    CHATML,
    EMPTY_BLOCK,
    LATEST_REASONING,
    TOOLS,
    Build,
    dropped,
    pair,
    remarks,
    replies,
    talk,
    thinking,
)
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Message, ToolCall

ASKED = Message("user", "2+3?")


class TestStopOfTheNextTurn:
    TEMPLATE = (
        "{%- for m in messages -%}{%- if m.role == 'user' -%}{{- '<|user|>' + m.content -}}"
        "{%- elif m.role == 'tool' -%}{{- '<|observation|>' + m.content -}}"
        "{%- else -%}{{- '<|assistant|>' -}}{%- if m.reasoning_content and loop.last -%}"
        "{{- '<think>' + m.reasoning_content + '</think>' -}}{%- endif -%}{{- m.content -}}"
        "{%- for c in m.tool_calls or [] -%}{{- '<call>' + (c.function | tojson) + '</call>' -}}{%- endfor -%}"
        "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
    )

    @pytest.fixture
    def glm(self, tmp_path: Path, write_model_folder: Callable[..., Path]) -> Build:
        tokens = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|observation|>")
        folder = write_model_folder(
            tmp_path,
            template=self.TEMPLATE,
            control_tokens=tokens,
            stop=["<|endoftext|>", "<|user|>", "<|observation|>"],
        )
        tokenizer = Tokenizer.load(folder)
        template = ChatTemplate(self.TEMPLATE, named_tokens=tokenizer.named_tokens)
        return lambda **options: Renderer(tokenizer, template, **options)

    @pytest.mark.parametrize("missing_stop", ["append", "drop"])
    def test_m2_a_turn_that_history_writes_otherwise_ends_as_one_that_it_does_not(
        self, glm: Build, missing_stop: str
    ) -> None:
        renderer = glm(missing_stop=missing_stop)
        assert replies(renderer, talk(*pair("2+3?", "5"))) == ["5<|user|>"]
        assert replies(renderer, talk(ASKED, thinking())) == ["<think>add them</think>5<|user|>"]

    def test_m2_in_every_turn_of_a_row(self, glm: Build) -> None:
        row = talk(ASKED, thinking(), Message("user", "3+3?"), thinking("6"))
        assert replies(glm(), row) == ["<think>add them</think>5<|user|>", "<think>add them</think>6<|user|>"]

    def test_m2_a_call_ends_in_the_token_that_opens_its_result(self, glm: Build) -> None:
        call = thinking("", tool_calls=(ToolCall("find", {"at": "x"}),))
        row = talk(ASKED, call, Message("tool", "found"), thinking())
        first, last = replies(glm(), row)
        assert first.endswith("</call><|observation|>")
        assert last.endswith("5<|user|>")

    def test_m2_a_turn_that_vanishes_from_history_ends_alike(self, glm: Build) -> None:
        (reply,) = replies(glm(), talk(ASKED, thinking("")))
        assert reply == "<think>add them</think><|user|>"


GREETING = (Message("assistant", "Welcome!"), Message("user", "Time?"), Message("assistant", "Noon."))
HEADER_BEHIND_QUESTIONS = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{- '<|im_start|>' + m.content + '<|im_start|>A' -}}"
    "{%- elif m.role == 'system' -%}{{- m.content -}}{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
)


@pytest.mark.parametrize(
    "prompt", ["", "{%- if add_generation_prompt and messages[-1].role != 'user' -%}<|im_start|>A{%- endif -%}"]
)
@pytest.mark.parametrize("opening", [(), (Message("system", "Be kind."),)])
def test_m3_a_greeting_is_context_where_the_header_follows_questions_only(
    with_template: Build, prompt: str, opening: tuple[Message, ...]
) -> None:
    renderer = with_template(HEADER_BEHIND_QUESTIONS + prompt)
    row = talk(*opening, *GREETING)
    assert replies(renderer, row)[-1] == "Noon.<|im_end|>"
    if not opening or prompt:
        assert "opening_turn_not_trained" in remarks(renderer, row)
        assert len(replies(renderer, row)) == 1


def test_m3_two_greetings_are_context_too(with_template: Build) -> None:
    prompt = "{%- if add_generation_prompt and messages[-1].role != 'user' -%}<|im_start|>A{%- endif -%}"
    assert replies(with_template(HEADER_BEHIND_QUESTIONS + prompt), talk(Message("assistant", "Hi."), *GREETING)) == [
        "Noon.<|im_end|>"
    ]


def test_m3_a_later_turn_that_is_no_continuation_still_drops_the_row(with_template: Build) -> None:
    other = CHATML.replace("{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_start|>assistant\\n<note> x\\n' -}}")
    assert dropped(with_template(other), talk(*pair("a", "b"))).reason == "prompt_not_a_prefix"


class TestEmptyBlock:
    PROMPTED = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n" + repr(EMPTY_BLOCK)[1:-1] + "' -}}{%- endif")
    TAKEN_OUT = CHATML.replace("message['content'] +", "message['content'].split('</think>')[-1].lstrip('\\n') +")
    BOTH = PROMPTED.replace("message['content'] +", "message['content'].split('</think>')[-1].lstrip('\\n') +")

    @pytest.mark.parametrize("template", [PROMPTED, TAKEN_OUT, BOTH])
    @pytest.mark.parametrize("block", [EMPTY_BLOCK, "<think></think>", "<think>\n</think>\n"])
    def test_m4_it_holds_no_words(self, with_template: Build, template: str, block: str) -> None:
        renderer = with_template(template)
        row = talk(Message("user", "2+3?"), Message("assistant", block + "Five."))
        if block != EMPTY_BLOCK and template == self.PROMPTED:
            return  # the template writes this block behind the one of the prompt
        assert replies(renderer, row) == ["Five.<|im_end|>"]
        assert "empty_block_left_out" in remarks(renderer, row)

    def test_m4_where_the_template_writes_it_it_stays(self, with_template: Build) -> None:
        renderer = with_template(CHATML)
        row = talk(Message("user", "2+3?"), Message("assistant", EMPTY_BLOCK + "Five."))
        assert replies(renderer, row) == [EMPTY_BLOCK + "Five.<|im_end|>"]
        assert remarks(renderer, row) == {}

    def test_m4_a_block_with_words_in_it_is_no_empty_one(self, with_template: Build) -> None:
        row = talk(Message("user", "2+3?"), Message("assistant", "<think>\nso\n</think>\n\nFive."))
        assert dropped(with_template(self.TAKEN_OUT), row).reason == "content_not_in_reply"


CHANNEL = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
    "{%- if m.reasoning and m.tool_calls -%}{{- '<|channel>thought\\n' + m.reasoning + '\\n<channel|>' -}}{%- endif -%}"
    "{%- for c in m.tool_calls or [] -%}{{- '<call>' + (c.function | tojson) + '</call>' -}}{%- endfor -%}"
    "{{- m.content + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<|channel>thought\\n' -}}{%- endif -%}"
)


def test_m5_the_end_of_reasoning_is_the_one_that_turns_with_calls_have(with_template: Build) -> None:
    renderer = with_template(CHANNEL)
    assert replies(renderer, talk(ASKED, thinking())) == ["add them\n<channel|>5<|im_end|>"]
    call = thinking("", tool_calls=(ToolCall("find", {"at": "x"}),))
    (reply,) = replies(renderer, talk(ASKED, call))
    assert reply.startswith("add them\n<channel|><call>")


def test_m5_an_empty_block_is_closed_in_the_same_way(with_template: Build) -> None:
    renderer = with_template(CHANNEL, empty_reasoning="close")
    assert replies(renderer, talk(*pair("2+3?", "5"))) == ["\n<channel|>5<|im_end|>"]


JOINED = (
    "{%- set ns = namespace(open=false) -%}{%- for m in messages -%}"
    "{%- if m.role == 'assistant' -%}{%- if not ns.open -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    "{{- m.content -}}{%- for c in m.tool_calls or [] -%}{{- '<call>' + (c.function | tojson) + '</call>' -}}"
    "{%- endfor -%}{%- set ns.open = true -%}"
    "{%- elif m.role == 'tool' -%}{{- '<result>' + m.content + '</result>' -}}"
    "{%- else -%}{%- if ns.open -%}{{- '<|im_end|>\\n' -}}{%- endif -%}{%- set ns.open = false -%}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}"
    "{%- elif ns.open -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
)


class TestWithoutItsHeader:
    def test_m7_replies_in_a_row_that_a_template_joins(self, with_template: Build) -> None:
        row = talk(Message("user", "a"), Message("assistant", "It is deep."), Message("assistant", "And flooded."))
        assert replies(with_template(JOINED), row) == ["It is deep.<|im_end|>", "And flooded.<|im_end|>"]

    def test_m7_a_reply_behind_a_result(self, with_template: Build) -> None:
        call = Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),))
        row = talk(ASKED, call, Message("tool", "found"), Message("assistant", "There."))
        first, last = replies(with_template(JOINED), row)
        assert last == "There.<|im_end|>"
        assert first.startswith("<call>")

    def test_m7_a_later_call_that_is_written_as_a_first_one(self, with_template: Build) -> None:
        calls = [Message("assistant", "", tool_calls=(ToolCall("find", {"at": at}),)) for at in ("x", "y")]
        row = talk(ASKED, calls[0], Message("tool", "found"), calls[1])
        first, last = replies(with_template(JOINED), row)
        assert last == first.replace('"x"', '"y"')
        assert last.startswith("<call>")
        assert last.endswith("</call><|im_end|>")

    def test_m7_a_later_call_that_is_joined_is_no_first_one(self, with_template: Build) -> None:
        template = JOINED.replace("{{- '<call>' +", "{{- ('<more>' if ns.open else '<call>') +")
        assert template != JOINED
        first = Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),))
        row = talk(ASKED, first, Message("tool", "found"), first)
        assert dropped(with_template(template), row).reason == "prompt_not_a_prefix"

    def test_m7_words_that_the_template_changes_there_drop_the_row(self, with_template: Build) -> None:
        changed = JOINED.replace(
            "{{- m.content -}}{%- for c", "{{- (m.content | upper) if ns.open else m.content -}}{%- for c"
        )
        assert changed != JOINED
        row = talk(Message("user", "a"), Message("assistant", "It is deep."), Message("assistant", "And flooded."))
        assert dropped(with_template(changed), row).reason != "nothing_to_train"


class TestInstructionBehindEveryConversation:
    """A template that ends in an instruction of its own, before the header that it serves; calls have no stop."""

    TEMPLATE = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}{%- if m.tool_calls -%}"
        "{{- (m.content or '') + '\\nAction: ' + (m.tool_calls[0].function | tojson) + '\\n' -}}"
        "{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}{%- endfor -%}"
        "{{- '<|im_start|>system\\nWrite an action.<|im_end|>' -}}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    REPLY = '\nAction: {"name": "find", "arguments": {"at": "x"}}<|im_end|>'

    @pytest.mark.parametrize("content", ["", "Let me."])
    def test_m7_a_call_ends_before_the_instruction_as_a_plain_turn_does(
        self, with_template: Build, content: str
    ) -> None:
        row = talk(ASKED, Message("assistant", content, tool_calls=(ToolCall("find", {"at": "x"}),)))
        renderer = with_template(self.TEMPLATE)
        assert replies(renderer, row) == [content + self.REPLY]
        assert "stop_appended" in remarks(renderer, row)
        assert dropped(with_template(self.TEMPLATE, missing_stop="drop"), row).reason == "no_stop_token"

    def test_m7_a_second_end_of_calls_is_no_turn_of_its_own(
        self, tmp_path: Path, write_model_folder: Callable[..., Path]
    ) -> None:
        template = self.TEMPLATE.replace("{{- '<|im_start|>system\\nWrite an action.<|im_end|>' -}}", "")
        template = template.replace("'<|im_end|>' -}}{%- endif -%}", "'<|im_end|><|endoftext|>' -}}{%- endif -%}")
        template = template.replace(" + '\\n' -}}{%- else", " + '<|im_start|><|endoftext|>' -}}{%- else")
        stops = ("<|im_end|>", "<|endoftext|>")
        tokenizer = Tokenizer.load(write_model_folder(tmp_path, template=template, stop=stops))
        renderer = Renderer(tokenizer, ChatTemplate(template, named_tokens=tokenizer.named_tokens))
        row = talk(ASKED, Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),)))
        (reply,) = replies(renderer, row)
        assert reply.endswith('"arguments": {"at": "x"}}<|im_start|><|endoftext|>')

    def test_m7_a_header_of_calls_that_the_prompt_lacks_drops_the_row(self, with_template: Build) -> None:
        template = self.TEMPLATE.replace(
            "'<|im_start|>' + m.role", "('<|call|>' if m.tool_calls else '<|im_start|>') + m.role"
        )
        assert template != self.TEMPLATE
        row = talk(ASKED, Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),)))
        assert dropped(with_template(template), row).reason == "prompt_not_a_prefix"


class TestSaidTwice:
    ROW = talk(ASKED, thinking("<think>\nadd them\n</think>\n\n5"))

    def test_e4_once_is_enough_where_the_template_has_a_field(self, with_template: Build) -> None:
        renderer = with_template(LATEST_REASONING)
        assert replies(renderer, self.ROW) == ["<think>\nadd them\n</think>\n\n5<|im_end|>"]
        assert set(remarks(renderer, self.ROW)) == {"reasoning_said_twice"}

    def test_e4_and_where_it_has_none(self, with_template: Build) -> None:
        assert replies(with_template(CHATML), self.ROW) == ["<think>\nadd them\n</think>\n\n5<|im_end|>"]

    def test_e4_in_an_opened_block(self, with_template: Build) -> None:
        opened = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<think>\\n' -}}{%- endif")
        assert replies(with_template(opened), self.ROW) == ["add them\n</think>\n\n5<|im_end|>"]

    def test_e4_other_words_are_not_the_same(self, with_template: Build) -> None:
        row = talk(ASKED, thinking("<think>\nother\n</think>\n\n5"))
        assert "reasoning_said_twice" not in remarks(with_template(LATEST_REASONING), row)
        assert dropped(with_template(CHATML), row).reason == "reasoning_not_in_reply"

    def test_e4_a_call_beside_it_stays(self, with_template: Build) -> None:
        call = thinking("<think>add them</think>", tool_calls=(ToolCall("find", {"at": "x"}),))
        (reply,) = replies(with_template(TOOLS), talk(ASKED, call))
        assert reply.count("add them") == 1
        assert "find" in reply


class TestEndOfEveryConversation:
    TEMPLATE = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}"
        "{%- else -%}{{- '<|im_start|>' + '<|endoftext|>' -}}{%- endif -%}"
    )

    def test_m2_a_stop_in_what_ends_every_conversation_is_no_stop_of_a_reply(
        self, tmp_path: Path, write_model_folder: Callable[..., Path]
    ) -> None:
        """With it the reply would hold the header of a turn that is not its own."""
        folder = write_model_folder(tmp_path, template=self.TEMPLATE, stop=["<|endoftext|>"])
        tokenizer = Tokenizer.load(folder)
        renderer = Renderer(tokenizer, ChatTemplate(self.TEMPLATE, named_tokens=tokenizer.named_tokens))
        drop = dropped(renderer, talk(ASKED, Message("assistant", "5")))
        assert drop.reason == "no_stop_token"
        assert "behind every conversation" in drop.detail
        ended = write_model_folder(tmp_path / "ended", template=self.TEMPLATE, stop=["<|im_end|>", "<|endoftext|>"])
        tokenizer = Tokenizer.load(ended)
        renderer = Renderer(tokenizer, ChatTemplate(self.TEMPLATE, named_tokens=tokenizer.named_tokens))
        assert replies(renderer, talk(ASKED, Message("assistant", "5"))) == ["5<|im_end|>"]
