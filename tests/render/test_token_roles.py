"""Whose words tokens are, against words that only one role says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.serving_oracle import FAMILIES, pair, proven, renderer_of, talk
from tutelage.render import Renderer
from tutelage.render.token_roles import CODES, ROLES, majority, role_counts, token_roles
from tutelage.render.token_text import token_texts
from tutelage.types import Conversation, Message, ToolCall


def words_by_role(renderer: Renderer, conversation: Conversation, part: int = 0) -> dict[str, str]:
    """The text of the tokens of each role of one sequence."""
    example = proven(renderer, conversation)[part]
    roles = token_roles(conversation, example, renderer)
    assert roles.traced
    texts = token_texts(example, renderer.tokenizer)
    found: dict[str, str] = {}
    for code, text in zip(roles.codes.tolist(), texts, strict=True):
        found[ROLES[code]] = found.get(ROLES[code], "") + text
    assert sum(role_counts(roles).values()) == len(example.ids)
    return found


TALK = talk(
    Message("system", "zebra system zebra"),
    *pair("question one", "answer one"),
    *pair("question two", "answer two"),
)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"latest_question_only"}))
def test_words_have_the_role_of_their_message(family_folder: Callable[[str], Path], name: str) -> None:
    found = words_by_role(renderer_of(family_folder(name)), TALK)
    assert "zebra system zebra" in found["system"]
    assert found["user"].replace(" ", "").count("question") == 2
    assert found["assistant"].replace(" ", "").count("answer") == 2
    for word in ("question", "answer", "zebra"):
        assert word not in found["template"]


def test_what_the_template_writes_is_its_own(chatml_folder: Path) -> None:
    found = words_by_role(renderer_of(chatml_folder), talk(*pair("hi", "yes")))
    start, end = "<|im_start|>", "<|im_end|>"
    assert found == {"user": "hi", "assistant": "yes", "template": f"{start}user\n{end}\n{start}assistant\n{end}"}


def test_each_sequence_of_a_split_row_is_traced(family_folder: Callable[[str], Path]) -> None:
    renderer = renderer_of(family_folder("latest_reasoning"))
    said = (Message("user", "question"), Message("assistant", "answer", reasoning="pondering"))
    assert len(proven(renderer, talk(*said, *said))) == 2
    for part in range(2):
        assert "pondering" in words_by_role(renderer, talk(*said, *said), part)["assistant"]


def test_tools_and_their_results(tmp_path: Path, write_model_folder: Callable[..., Path]) -> None:
    template = (
        "{% if tools %}{% for t in tools %}T {{ t.function.name }}\n{% endfor %}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}"
        "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    renderer = renderer_of(write_model_folder(tmp_path / "calls", template=template))
    conversation = talk(
        Message("user", "where"),
        Message("assistant", "", tool_calls=(ToolCall("lookup", {"city": "Lyon"}),)),
        Message("tool", "sunny"),
        Message("assistant", "warm"),
        tools=({"type": "function", "function": {"name": "lookup"}},),
    )
    found = words_by_role(renderer, conversation)
    assert "lookup" in found["tool list"]
    assert found["tool"] == "sunny"
    assert "Lyon" in found["assistant"]
    assert "warm" in found["assistant"]


def test_a_document_is_text(chatml_folder: Path) -> None:
    found = words_by_role(renderer_of(chatml_folder), talk(Message("text", "a document")))
    assert list(found) == ["text"]


def test_what_cannot_be_traced_is_said(tmp_path: Path, write_model_folder: Callable[..., Path]) -> None:
    """The prompt opens a block of reasoning that the finished turn lacks: the reply is put together, not rendered."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    renderer = renderer_of(write_model_folder(tmp_path / "think", template=template))
    conversation = talk(Message("user", "where"), Message("assistant", "there", reasoning="I ponder"))
    (example,) = proven(renderer, conversation)
    roles = token_roles(conversation, example, renderer)
    assert not roles.traced
    trained = example.weights != 0
    assert set(roles.codes[trained].tolist()) == {CODES["assistant"]}
    texts = np.array(token_texts(example, renderer.tokenizer), dtype=object)
    assert "".join(texts[roles.codes == CODES["user"]]) == "where"


def test_a_stop_token_that_is_appended_is_not_the_messages(
    tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    renderer = renderer_of(write_model_folder(tmp_path / "plain", template=template))
    conversation = talk(*pair("where", "there"))
    (example,) = proven(renderer, conversation)
    roles = token_roles(conversation, example, renderer)
    assert roles.traced
    assert ROLES[roles.codes[-1]] == "template"
    assert example.weights[-1] == 1


@given(
    codes=st.lists(st.integers(0, len(ROLES) - 1), min_size=1, max_size=30),
    bounds=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
)
@settings(deadline=None)
def test_a_token_has_the_role_of_most_of_its_characters(codes: list[int], bounds: list[tuple[int, int]]) -> None:
    spans = [tuple(sorted((min(a, len(codes)), min(b, len(codes))))) for a, b in bounds]
    found = majority(np.asarray(codes, dtype=np.int8), spans)
    for (start, end), code in zip(spans, found.tolist(), strict=True):
        own = codes[start:end]
        if not own:
            assert ROLES[code] == "template"
        else:
            assert own.count(code) == max(own.count(one) for one in own)
