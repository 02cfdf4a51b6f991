"""Findings about a template and a tokenizer: each behaviour is seen from outside, none is read from the text."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.audit.template_findings import checkpoint_findings
from tutelage.audit.template_probe import Probe, content_form, opened_reasoning, probe_template
from tutelage.audit.tool_findings import probe_tools
from tutelage.render import ChatTemplate, Tokenizer
from tutelage.types import Finding

TURN = "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def each(body: str, *, before: str = "", prompt: str = PROMPT) -> str:
    return f"{before}{{% for message in messages %}}{body}{{% endfor %}}{prompt}"


PLAIN = each(TURN)
GUARDED = each("{% if message.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + TURN)
SILENT = each("{% if message.role != 'system' %}" + TURN + "{% endif %}")
MERGING = each(
    "{% if message.role == 'system' %}{% set held.text = message.content + '\\n\\n' %}{% else %}"
    "{{ '<|im_start|>' + message.role + '\\n' + (held.text if message.role == 'user' else '') + message.content }}"
    "{% if message.role == 'user' %}{% set held.text = '' %}{% endif %}{{ '<|im_end|>\\n' }}{% endif %}",
    before="{% set held = namespace(text='') %}",
)
LAST_USER = each(
    "{% if message.role != 'system' %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if loop.last and message.role == 'user' and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{{ message.content + '<|im_end|>\\n' }}{% endif %}"
)
DEFAULT = each(
    TURN,
    before="{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a patient teacher.<|im_end|>\\n' }}{% endif %}",
)
DATED = each(TURN, before="{{ 'Today is ' + strftime_now('%d %b %Y') + '\\n' }}")
TRIMMING = each(TURN.replace("message.content", "message.content | trim"))
TRIMMING_ONE_SIDE = each(
    "{% if message.role == 'assistant' %}" + TURN.replace("message.content", "message.content.rstrip()") + "{% else %}"
    + TURN + "{% endif %}"
)  # fmt: skip
ALWAYS_ASKS = each(TURN, prompt="")
THINKING = each(
    "{% set words = message.content.split('</think>')[-1] if not loop.last else message.content %}"
    + TURN.replace("message.content", "words"),
    prompt="{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
)
CLOSED_THINKING = each(
    TURN, prompt="{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
REASONING_FIELD = each(
    "{{ '<|im_start|>' + message.role + '\\n' }}{% if message.reasoning_content and loop.last %}"
    "{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}{{ message.content + '<|im_end|>\\n' }}"
)
PARTS = each(TURN.replace("message.content", "message.content[0]['text']"))
ALTERNATING = each(
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}" + TURN
)
ENDLESS = each("{{ message.role + ': ' + message.content + '\\n' }}", prompt="{{ 'assistant: ' }}")
MARKED = each("{% generation %}" + TURN + "{% endgeneration %}")
FINAL_END = each(TURN, prompt="{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% else %}END{% endif %}")
ARGUED = each(TURN, before="{% if enable_thinking %}{{ 'Think first.\\n' }}{% endif %}")
SILENT_REPLY = each("{% if message.role == 'user' %}" + TURN + "{% endif %}")


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


@pytest.fixture
def found(tokenizer: Tokenizer) -> Callable[..., dict[str, Finding]]:
    def findings(source: str, tokenizer: Tokenizer = tokenizer, **options: object) -> dict[str, Finding]:
        template = ChatTemplate(source, named_tokens=tokenizer.named_tokens)
        every = checkpoint_findings(template, tokenizer, **options)
        assert len({one.key for one in every}) == len(every)
        return {one.key: one for one in every}

    return findings


def test_a_plain_template_has_neither_warnings_nor_errors(found: Callable[..., dict[str, Finding]]) -> None:
    assert {one.severity for one in found(PLAIN).values()} == {"info"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (PLAIN, "system_kept"),
        (GUARDED, "system_refused"),
        (SILENT, "system_dropped"),
        (MERGING, "system_merged"),
        (LAST_USER, "system_dropped_after_reply"),
    ],
)
def test_what_becomes_of_a_system_turn(found: Callable[..., dict[str, Finding]], source: str, key: str) -> None:
    seen = [one for one in found(source) if one.startswith("system_") and one not in ("system_moves",)]
    assert seen == [key]


def test_a_system_turn_that_moves_costs_a_sequence_for_each_reply(found: Callable[..., dict[str, Finding]]) -> None:
    assert "square" in found(LAST_USER)["system_moves"].sentence
    assert "system_moves" not in found(PLAIN)


def test_a_system_prompt_of_the_template_is_shown(found: Callable[..., dict[str, Finding]]) -> None:
    assert "You are a patient teacher." in found(DEFAULT)["default_system"].evidence
    assert "default_system" not in found(PLAIN)


def test_todays_date_is_found_by_moving_the_clock(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(DATED)["date_in_prompt"]
    assert finding.evidence == "'Today is 01 Jan 2026'"
    assert "2026-01-01 (render.date)" in finding.sentence
    assert "date_in_prompt" not in found(PLAIN)


def test_white_space_that_is_removed(found: Callable[..., dict[str, Finding]]) -> None:
    assert {"trims_user", "trims_assistant"} <= found(TRIMMING).keys()
    one_side = found(TRIMMING_ONE_SIDE)
    assert "trims_user" not in one_side
    assert "after a reply" in one_side["trims_assistant"].sentence


def test_a_generation_prompt_that_is_ignored(found: Callable[..., dict[str, Finding]]) -> None:
    assert "<|im_start|>assistant" in found(ALWAYS_ASKS)["ignores_generation_prompt"].evidence
    assert "ignores_generation_prompt" not in found(PLAIN)


def test_a_prompt_that_opens_reasoning(found: Callable[..., dict[str, Finding]]) -> None:
    seen = found(THINKING)
    assert "render.empty_reasoning" in seen["prompt_opens_reasoning"].sentence
    assert "prompt_rewritten" in seen
    closed = found(CLOSED_THINKING)
    assert "prompt_closes_reasoning" in closed
    assert "prompt_opens_reasoning" not in closed


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("<|Assistant|><think>\n", ("<think>", False)),
        ("[THINK]", ("[THINK]", False)),
        ("<think>\n\n</think>\n\n", ("<think>", True)),
        ("<|im_start|>assistant\n", (None, False)),
        ("thinking: ", (None, False)),
    ],
)
def test_tags_that_open_reasoning(tail: str, expected: tuple[str | None, bool]) -> None:
    assert opened_reasoning(tail) == expected


def test_reasoning_that_is_dropped_from_history(found: Callable[..., dict[str, Finding]]) -> None:
    for source in (REASONING_FIELD, THINKING):
        assert "square" in found(source)["reasoning_dropped_from_history"].sentence
    assert "reasoning_dropped_from_history" not in found(PLAIN)


def test_content_that_has_to_come_in_parts(found: Callable[..., dict[str, Finding]]) -> None:
    assert "content_as_parts" in found(PARTS)
    assert "system_kept" in found(PARTS)
    assert content_form(ChatTemplate(PLAIN, named_tokens={})) == "text"


def test_orders_of_turns_that_are_refused(found: Callable[..., dict[str, Finding]]) -> None:
    evidence = found(ALTERNATING)["turn_order_refused"].evidence
    assert {"two_users", "assistant_first", "two_assistants"} == set(evidence.removeprefix("probes: ").split(", "))
    assert "turn_order_refused" not in found(PLAIN)


def test_a_reply_without_an_end_says_what_happens_to_it(found: Callable[..., dict[str, Finding]]) -> None:
    assert "is appended" in found(ENDLESS)["no_stop_after_reply"].sentence
    assert "rows are dropped" in found(ENDLESS, missing_stop="drop")["no_stop_after_reply"].sentence
    assert "no_stop_after_reply" not in found(PLAIN)


def test_a_terminator_that_is_no_stop_is_suggested_as_one(
    found: Callable[..., dict[str, Finding]], tokenizer: Tokenizer
) -> None:
    other = frozenset({tokenizer.special_tokens["<|endoftext|>"]})
    finding = found(PLAIN, dataclasses.replace(tokenizer, stop_ids=other))["no_stop_after_reply"]
    assert finding.fix is not None
    assert "render.stop_tokens = ['<|im_end|>']" in finding.fix


def test_an_end_of_text_that_is_not_the_end_of_a_turn(
    found: Callable[..., dict[str, Finding]], tokenizer: Tokenizer
) -> None:
    named = tokenizer.named_tokens | {"eos_token": "<|endoftext|>"}
    finding = found(PLAIN, dataclasses.replace(tokenizer, named_tokens=named))["eos_differs"]
    assert finding.evidence == "replies end in <|im_end|>; eos_token is <|endoftext|>"
    assert "eos_differs" not in found(PLAIN)


def test_text_after_the_stop_token_is_context(found: Callable[..., dict[str, Finding]]) -> None:
    assert found(PLAIN)["text_after_stop"].evidence == "after <|im_end|> it writes '\\n'"
    assert "text_after_stop" not in found(PLAIN.replace("<|im_end|>\\n", "<|im_end|>"))


def test_a_template_of_another_checkpoint_is_an_error(found: Callable[..., dict[str, Finding]]) -> None:
    foreign = PLAIN.replace("<|im_start|>", "<|turn_start|>").replace("<|im_end|>", "<|turn_end|>")
    finding = found(foreign)["control_tokens_split"]
    assert finding.severity == "error"
    assert "<|turn_start|> is " in finding.evidence
    assert "control_tokens_split" not in found(PLAIN)


def test_role_marks_of_text_are_a_warning_unless_they_are_meant_so(found: Callable[..., dict[str, Finding]]) -> None:
    marks = each(
        "{{ '<|' + message.role + '|>\\n' + message.content + '<|im_end|>\\n' }}", prompt="{{ '<|assistant|>' }}"
    )
    assert found(marks)["role_tokens_split"].severity == "warning"
    meant = found(marks, text_markers=("<|user|>", "<|assistant|>", "<|system|>"))
    assert "role_tokens_split" not in meant
    assert "<|user|>" in meant["markers_are_text"].evidence


def test_named_tokens_that_nobody_defined(found: Callable[..., dict[str, Finding]]) -> None:
    assert "bos_token" in found("{{ bos_token }}" + PLAIN)["named_tokens_undefined"].evidence
    assert "named_tokens_undefined" not in found("{{ eos_token }}" + PLAIN)


def test_a_padding_token_that_stops_is_harmless_and_said(
    found: Callable[..., dict[str, Finding]], tokenizer: Tokenizer
) -> None:
    named = tokenizer.named_tokens | {"pad_token": "<|im_end|>"}
    assert found(PLAIN, dataclasses.replace(tokenizer, named_tokens=named))["pad_is_stop"].severity == "info"
    assert "pad_is_stop" not in found(PLAIN)


def test_control_tokens_without_a_row_in_the_embedding(
    found: Callable[..., dict[str, Finding]], tokenizer: Tokenizer
) -> None:
    small = dataclasses.replace(tokenizer, vocabulary_size=tokenizer.special_tokens["<|im_end|>"])
    assert found(PLAIN, small)["control_tokens_without_embedding"].severity == "error"
    assert found(PLAIN).keys().isdisjoint({"control_tokens_without_embedding", "ids_without_embedding"})


class TestFirstToken:
    @pytest.fixture
    def with_bos(self, tmp_path: Path, write_model_folder: Callable[..., Path]) -> Tokenizer:
        from tokenizers import Tokenizer as FastTokenizer
        from tokenizers.processors import TemplateProcessing

        tokens = ("<s>", "<|im_start|>", "<|im_end|>")
        folder = write_model_folder(tmp_path / "bos", template=PLAIN, control_tokens=tokens, bos="<s>")
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        fast.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", fast.token_to_id("<s>"))])
        fast.save(str(folder / "tokenizer.json"))
        return Tokenizer.load(folder)

    @pytest.mark.parametrize(
        ("before", "key"),
        [("", "bos_not_written"), ("{{ bos_token }}", "bos_added_twice"), ("<s><s>", "bos_written_twice")],
    )
    def test_none_one_and_two(
        self, found: Callable[..., dict[str, Finding]], with_bos: Tokenizer, before: str, key: str
    ) -> None:
        assert [one for one in found(before + PLAIN, with_bos) if one.startswith("bos_")] == [key]


def test_a_token_that_swallows_white_space(
    found: Callable[..., dict[str, Finding]], tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    folder = write_model_folder(tmp_path / "swallows", template=PLAIN)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] == "<|im_end|>"
    path.write_text(json.dumps(content), "utf-8")
    finding = found(PLAIN, Tokenizer.load(folder))["white_space_swallowed"]
    assert finding.severity == "warning"
    assert finding.evidence == "the template writes '<|im_end|>\\n'"


def test_two_stored_templates(
    found: Callable[..., dict[str, Finding]], tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    folder = write_model_folder(tmp_path / "two", template=PLAIN)
    settings = folder / "tokenizer_config.json"
    value = json.loads(settings.read_text("utf-8")) | {"chat_template": SILENT}
    settings.write_text(json.dumps(value), "utf-8")
    assert found(PLAIN, Tokenizer.load(folder))["stored_twice"].severity == "warning"
    assert "stored_twice" not in found(SILENT, Tokenizer.load(folder))


def test_markers_are_said_to_be_ignored(found: Callable[..., dict[str, Finding]]) -> None:
    assert "ignored" in found(MARKED)["generation_markers"].sentence
    assert "generation_markers" not in found(PLAIN)


def test_an_end_that_only_finished_conversations_have(found: Callable[..., dict[str, Finding]]) -> None:
    assert "ends_without_prompt" in found(FINAL_END)
    assert "ends_without_prompt" not in found(PLAIN)


def test_arguments_that_change_what_is_served(found: Callable[..., dict[str, Finding]]) -> None:
    assert found(ARGUED)["template_arguments"].evidence == "the text changes with enable_thinking = true"
    assert "template_arguments" not in found(PLAIN)


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("{{ raise_exception('never') }}", "plain_chat_refused"),
        ("always the same", "plain_chat_refused"),
        (each("{% if message.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}" + TURN), "reply_refused"),
        (SILENT_REPLY, "reply_not_written"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_an_error(
    found: Callable[..., dict[str, Finding]], source: str, key: str
) -> None:
    assert found(source)[key].severity == "error"


class TestTools:
    CALL = (
        "{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') }}"
        "{% for call in message.tool_calls or [] %}{{ call.function.name + ARGUMENTS }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}"
    )

    def template(self, arguments: str, before: str = "") -> str:
        return each(self.CALL.replace("ARGUMENTS", arguments), before=before)

    @pytest.mark.parametrize(
        ("arguments", "as_object", "as_text"),
        [
            ("(call.function.arguments | tojson)", "kept", "twice_encoded"),
            ("call.function.arguments", "refused", "kept"),
            ("(call.function.arguments | string)", "python", "kept"),
            ("''", "dropped", "dropped"),
            (
                "(call.function.arguments if call.function.arguments is string else call.function.arguments | tojson)",
                "kept",
                "kept",
            ),
        ],
    )
    def test_spellings_of_arguments(self, arguments: str, as_object: str, as_text: str) -> None:
        seen = probe_tools(Probe(ChatTemplate(self.template(arguments), named_tokens={})))
        assert (seen.object_arguments, seen.text_arguments) == (as_object, as_text)

    def test_each_spelling_has_its_finding(self, found: Callable[..., dict[str, Finding]]) -> None:
        shown = "{% if tools %}{{ tools | tojson }}{% endif %}"
        assert "calls_as_object" in found(self.template("(call.function.arguments | tojson)", shown))
        assert "calls_as_text" in found(self.template("call.function.arguments", shown))
        assert "calls_not_written" in found(self.template("''", shown))
        assert "no_tools" in found(self.template("''"))
        assert "tools_not_shown" in found(self.template("(call.function.arguments | tojson)"))


def test_the_whole_of_what_is_observed_is_refused_together() -> None:
    seen = probe_template(ChatTemplate("{{ raise_exception('never') }}", named_tokens={}))
    assert (seen.content, seen.refusal, seen.system) == ("neither", "never", "refused")


def _keys_in(path: Path) -> set[str]:
    """First arguments of `Finding(...)`: whole where they are text, else the text they begin with, and a star."""
    keys = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            first = node.args[0]
            if isinstance(first, ast.BinOp):
                first = first.left
            elif isinstance(first, ast.JoinedStr):
                first = first.values[0]
            whole = first is node.args[0]
            if isinstance(first, ast.Constant):
                keys.add(str(first.value) + ("" if whole else "*"))
    return keys


def test_every_finding_is_on_its_page_and_no_other_is() -> None:
    root = Path(__file__).resolve().parents[2]
    keys = {key for path in (root / "src/tutelage").rglob("*.py") for key in _keys_in(path)}
    listed = set(
        re.findall(r"^\| `(\w+)` \| (?:info|warning|error) \|", (root / "docs/findings.md").read_text("utf-8"), re.M)
    )
    stems = tuple(key.removesuffix("*") for key in keys if key.endswith("*"))
    assert {one for one in listed if not one.startswith(stems)} == {key for key in keys if not key.endswith("*")} | {
        "trims_user",
        "trims_assistant",
    }
    assert all(any(one.startswith(stem) for one in listed) for stem in stems)
