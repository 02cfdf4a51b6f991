"""What a served prompt opens and the finished turn leaves out, or stays in: tags, words of reasoning, calls."""

from __future__ import annotations

import pytest

from tests.support.serving_oracle import (
    CHATML,
    EMPTY_BLOCK,
    LATEST_REASONING,
    Build,
    dropped,
    pair,
    remarks,
    replies,
    talk,
    thinking,
)
from tutelage.types import Message, ToolCall

ASKED = Message("user", "2+3?")


class TestOpenedInOtherWords:
    SENTENCE = (
        LATEST_REASONING.replace("'<think>\\n' + ", "")
        .replace("'\\n</think>\\n\\n'", "'\\n[FINAL]\\n'")
        .replace("assistant\\n' -}}{%- endif", "assistant\\nHere are my reasoning steps:\\n' -}}{%- endif")
    )
    JUDGE = CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<judge>\\n' -}}{%- endif")

    def test_m7_reasoning_follows_the_sentence(self, with_template: Build) -> None:
        assert replies(with_template(self.SENTENCE), talk(ASKED, thinking())) == ["add them\n[FINAL]\n5<|im_end|>"]

    def test_m7_a_turn_without_reasoning_is_the_policys(self, with_template: Build) -> None:
        row = talk(*pair("2+3?", "5"))
        assert dropped(with_template(self.SENTENCE), row).reason == "no_reasoning"
        closes = with_template(self.SENTENCE, empty_reasoning="close")
        assert replies(closes, row) == ["\n[FINAL]\n5<|im_end|>"]
        assert "reasoning_closed" in remarks(closes, row)

    def test_m7_a_tag_of_another_name_is_closed_by_its_own(self, with_template: Build) -> None:
        row = talk(*pair("2+3?", "5"))
        assert dropped(with_template(self.JUDGE), row).reason == "prompt_not_a_prefix"
        assert replies(with_template(self.JUDGE, empty_reasoning="close"), row) == ["\n</judge>\n\n5<|im_end|>"]
        assert replies(with_template(self.JUDGE), talk(ASKED, thinking())) == ["add them\n</judge>\n\n5<|im_end|>"]

    @pytest.mark.parametrize("policy", ["drop", "close"])
    def test_m7_reasoning_of_its_own_in_the_content_is_not_put_behind_the_block(
        self, with_template: Build, policy: str
    ) -> None:
        row = talk(*pair("2+3?", "<think>\nadd them\n</think>\n\n5"))
        assert dropped(with_template(self.JUDGE, empty_reasoning=policy), row).reason == "prompt_not_a_prefix"
        assert replies(with_template(self.SENTENCE, empty_reasoning=policy), row) == ["add them\n[FINAL]\n5<|im_end|>"]

    @pytest.mark.parametrize("words", ["Answer:\\n", "[FINAL]\\n", "My reasoning is over. [FINAL]\\n"])
    def test_m7_other_words_open_no_reasoning(self, with_template: Build, words: str) -> None:
        template = self.SENTENCE.replace("Here are my reasoning steps:\\n", words)
        for policy in ("drop", "close"):
            renderer = with_template(template, empty_reasoning=policy)
            assert dropped(renderer, talk(ASKED, thinking())).reason == "prompt_not_a_prefix"
            assert dropped(renderer, talk(*pair("2+3?", "5"))).reason == "prompt_not_a_prefix"


class TestCallsBehindOtherWords:
    """Turns of calls alone: what stands before their first word is more than the header."""

    WRITTEN = (
        "{{- message['content'] -}}{%- for c in message['tool_calls'] or [] -%}"
        "{{- '\\n<call>' + (c['function'] | tojson) + '</call>' -}}{%- endfor -%}{{- '<|im_end|>\\n' -}}"
    )
    SENTENCE = TestOpenedInOtherWords.SENTENCE.replace("{{- message['content'] + '<|im_end|>\\n' -}}", WRITTEN)
    JUDGE = TestOpenedInOtherWords.JUDGE.replace("+ message['content'] + '<|im_end|>\\n' -}}", "-}}" + WRITTEN)
    CALL = '\n<call>{"name": "find", "arguments": {"at": "x"}}</call><|im_end|>'
    ROW = talk(ASKED, Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),)))
    THINKS = talk(ASKED, thinking("", tool_calls=(ToolCall("find", {"at": "x"}),)))

    def test_m7_a_call_without_reasoning_leaves_them_as_one_with_reasoning_does(self, with_template: Build) -> None:
        drop = dropped(with_template(self.SENTENCE), self.ROW)
        assert drop.reason == "no_reasoning"
        assert drop.detail.endswith('proven with render.empty_reasoning = "close"')
        closes = with_template(self.SENTENCE, empty_reasoning="close")
        assert replies(closes, self.ROW) == ["\n[FINAL]\n" + self.CALL]
        assert "reasoning_closed" in remarks(closes, self.ROW)
        assert replies(with_template(self.SENTENCE), self.THINKS) == ["add them\n[FINAL]\n" + self.CALL]

    def test_m7_a_tag_of_another_name_is_closed_before_a_call(self, with_template: Build) -> None:
        assert dropped(with_template(self.JUDGE), self.ROW).reason == "prompt_not_a_prefix"
        closes = with_template(self.JUDGE, empty_reasoning="close")
        assert replies(closes, self.ROW) == ["\n</judge>\n\n" + self.CALL]
        assert replies(with_template(self.JUDGE), self.THINKS) == ["add them\n</judge>\n\n" + self.CALL]

    def test_m7_a_call_that_is_written_otherwise_behind_reasoning_drops_the_row(self, with_template: Build) -> None:
        other = self.SENTENCE.replace("{{- '\\n<call>'", "{{- ('<c>' if message['reasoning_content'] else '\\n<call>')")
        assert other != self.SENTENCE
        renderer = with_template(other, empty_reasoning="close")
        assert dropped(renderer, self.ROW).reason == "prompt_not_a_prefix"


class TestInsideTheOpenedBlock:
    """A template that reads no reasoning and writes the last turn's words right behind the tag that its prompt has."""

    TEMPLATE = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
        "{%- if m.role == 'assistant' and loop.last -%}{{- '<think>\\n' + m.content.strip() -}}"
        "{%- else -%}{{- m.content.split('</think>')[-1].strip() -}}{%- endif -%}"
        "{%- for c in m.tool_calls or [] -%}{{- '<call>' + (c.function | tojson) + '</call>' -}}{%- endfor -%}"
        "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
    )

    def test_m7_a_turn_without_reasoning_closes_it_first(self, with_template: Build) -> None:
        row = talk(*pair("2+3?", "5"), *pair("3+3?", "6"))
        assert dropped(with_template(self.TEMPLATE), row).reason == "no_reasoning"
        closes = with_template(self.TEMPLATE, empty_reasoning="close")
        assert replies(closes, row) == ["</think>\n\n5<|im_end|>", "</think>\n\n6<|im_end|>"]
        assert "reasoning_closed" in remarks(closes, row)

    @pytest.mark.parametrize(
        "turn", [thinking(), Message("assistant", "<think>\nadd them\n</think>\n\n5"), thinking("\n5\n")]
    )
    def test_m7_its_reasoning_comes_before_the_closing_tag(self, with_template: Build, turn: Message) -> None:
        (reply,) = replies(with_template(self.TEMPLATE), talk(ASKED, turn))
        assert reply.replace("\n\n\n", "\n\n") == "add them\n</think>\n\n5<|im_end|>"

    def test_m7_an_empty_block_in_the_content_is_the_rows_own(self, with_template: Build) -> None:
        row = talk(ASKED, Message("assistant", EMPTY_BLOCK + "5"))
        assert replies(with_template(self.TEMPLATE), row) == ["</think>\n\n5<|im_end|>"]

    def test_m7_calls_stand_behind_the_closing_tag(self, with_template: Build) -> None:
        call = Message("assistant", "", tool_calls=(ToolCall("find", {"at": "x"}),))
        (reply,) = replies(with_template(self.TEMPLATE, empty_reasoning="close"), talk(ASKED, call))
        assert reply == '</think><call>{"name": "find", "arguments": {"at": "x"}}</call><|im_end|>'

    @pytest.mark.parametrize("turn", [Message("assistant", "5"), thinking()])
    def test_m7_where_the_template_takes_the_tag_out_the_row_goes(self, with_template: Build, turn: Message) -> None:
        without = self.TEMPLATE.replace("m.content.strip()", "m.content.replace('</think>', '').strip()")
        renderer = with_template(without, empty_reasoning="close")
        assert dropped(renderer, talk(ASKED, turn)).reason in ("no_reasoning", "reasoning_not_in_reply")

    def test_m7_where_the_template_closes_it_by_itself_no_reasoning_comes_behind(self, with_template: Build) -> None:
        closes = self.TEMPLATE.replace("'<think>\\n' + m.content", "'<think>\\n\\n</think>\\n\\n' + m.content")
        assert closes != self.TEMPLATE
        assert replies(with_template(closes), talk(*pair("2+3?", "5"))) == ["\n</think>\n\n5<|im_end|>"]
        assert dropped(with_template(closes), talk(ASKED, thinking())).reason == "reasoning_not_in_reply"
