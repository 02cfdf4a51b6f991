from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.render import Renderer
from tutelage.report.console.row import RAW_CHARACTERS, all_doors, headline, legend
from tutelage.types import Address, Conversation, Example, Message, Proven, ToolCall

ROW = '{"messages": [{"role": "user", "content": "hi [red]"}, {"role": "assistant", "content": "yo 🙂"}]}'


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer_folder: Path) -> Renderer:
    return renderer_for(tiny_tokenizer_folder, RenderSettings())


def proven(renderer: Renderer, conversation: Conversation) -> tuple[Example, ...]:
    (outcome,) = renderer.prove([conversation])
    assert isinstance(outcome, Proven)
    return outcome.examples


def shown(renderer: Renderer, conversation: Conversation, *, row_tokens: int = 512) -> str:
    screen = io.StringIO()
    doors = all_doors(conversation, proven(renderer, conversation), renderer, row_tokens=row_tokens)
    Console(file=screen, width=200, highlight=False).print(doors)
    return screen.getvalue()


def talk(address: Address, *messages: Message) -> Conversation:
    return Conversation(messages or (Message("user", "hi"), Message("assistant", "yo")), address)


def test_every_door_in_order(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{ROW}\n{ROW.replace('yo', 'no')}\n", "utf-8")
    first, second = read([str(path)], ledger=Ledger())
    text = shown(renderer, second)
    titles = ["1. the bytes", "2. formats", "3. render", "4. render", "5. pack"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert ROW.replace("yo", "no") in text
    assert ROW not in text
    assert "hi [red]" in text.split(titles[1])[1]
    assert "<|im_start|>assistant\nno 🙂<|im_end|>" in text
    assert ROW in shown(renderer, first)


def test_the_trained_tokens_are_listed_with_id_and_weight(renderer: Renderer) -> None:
    conversation = talk(Address("gone.jsonl", 1), Message("user", "a"), Message("assistant", "b", weight=0.5))
    (example,) = proven(renderer, conversation)
    (turn,) = example.turns
    section = shown(renderer, conversation).split("4. render")[1].split("5. pack")[0]
    listed = [line.split() for line in section.splitlines()[1:] if line.strip()]
    assert listed[0] == ["position", "id", "weight", "token"]
    assert listed[1][-4:] == ["served", "prompt,", str(turn.prompt_end), "tokens"]
    assert [line[:3] for line in listed[2:]] == [
        [str(position), str(example.ids[position]), "0.5"] for position in range(turn.prompt_end, turn.reply_end)
    ]
    assert listed[-1][3] == "<|im_end|>"


def test_the_packed_row_is_counted(renderer: Renderer) -> None:
    conversation = talk(Address("gone.jsonl", 1))
    (example,) = proven(renderer, conversation)
    packed = shown(renderer, conversation).split("5. pack")[1]
    tokens = len(example.ids)
    assert f"{tokens} tokens, documents of {tokens} tokens, positions 0..{tokens - 1}" in packed
    assert f"{example.trained_tokens} trained tokens" in packed


def test_a_row_of_several_sequences_shows_each(renderer: Renderer) -> None:
    said = (Message("user", "a"), Message("assistant", "  b"), Message("user", "c"), Message("assistant", "d"))
    conversation = talk(Address("gone.jsonl", 1), *said)  # a merge over the boundary needs a second sequence
    text = shown(renderer, conversation)
    assert "the proven example 0" in text
    assert "the proven example 1" in text
    assert "part 1:" in text


def test_calls_reasoning_and_tools_are_shown(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    template = tmp_path / "calls.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.reasoning_content }}{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "utf-8",
    )
    renderer = renderer_for(tiny_tokenizer_folder, RenderSettings(template=str(template)))
    call = Message("assistant", "", reasoning="I look it up", tool_calls=(ToolCall("lookup", {"city": "Lyon"}),))
    conversation = Conversation(
        (Message("user", "a"), call), Address("gone.jsonl", 1), tools=({"function": {"name": "lookup"}},)
    )
    section = shown(renderer, conversation).split("2. formats")[1].split("3. render")[0]
    assert "I look it up" in section
    assert "lookup {'city': 'Lyon'}" in section
    assert "(tool)" in section


class TestBytes:
    def raw(self, renderer: Renderer, address: Address) -> str:
        return shown(renderer, talk(address)).split("2. formats")[0]

    def test_of_a_long_line(self, renderer: Renderer, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("x" * (RAW_CHARACTERS + 500) + "\n", "utf-8")
        text = self.raw(renderer, Address(str(path), 1))
        assert text.count("x") < RAW_CHARACTERS + 5
        assert " ..." in text

    def test_that_are_no_text(self, renderer: Renderer, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b"\xff\xfe broken\n")
        assert "\ufffd" in self.raw(renderer, Address(str(path), 1))

    def test_of_a_table_or_an_archive(self, renderer: Renderer, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("a,b\n1,2\n", "utf-8")
        assert "row 1 (not a line of text)" in self.raw(renderer, Address(str(tmp_path / "rows.csv"), 1, "row"))
        assert "(not a line of text)" in self.raw(renderer, Address("rows.jsonl.gz", 1))

    def test_of_a_file_that_has_changed(self, renderer: Renderer, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("one\n", "utf-8")
        assert "the file has changed" in self.raw(renderer, Address(str(path), 2))


def test_the_headline(renderer: Renderer) -> None:
    (example,) = proven(renderer, talk(Address("rows.jsonl", 3)))
    share = f"{100 * example.trained_tokens / len(example.ids):.1f}\u00a0%"
    assert headline(example).plain == (
        f"rows.jsonl:3: {len(example.ids)} tokens, {example.trained_tokens} trained ({share}), 1 turn"
    )


def test_the_legend_names_its_colours() -> None:
    assert legend().plain.split() == ["trained", "stop", "token", "context"]
