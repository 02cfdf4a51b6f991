"""One row bounds what it takes: a huge, long or deep one is dropped with its address, and the run goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.support.serving_oracle import CHATML, dropped, pair, proven, renderer_of, talk
from tutelage.errors import TemplateError
from tutelage.ledger import Ledger
from tutelage.pack.pipeline import proven_rows
from tutelage.render import ChatTemplate, Renderer, Tokenizer, examples
from tutelage.render.row_size import DEPTH_MAX, FEW_TURNS, longer_than, size_of
from tutelage.render.workers import ROWS_WORTH_WORKERS
from tutelage.types import Address, Change, Conversation, Drop, Message, ToolCall

GOOD = talk(*pair("q", "a"))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 1}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


def with_template(renderer: Renderer, source: str, **limits: Any) -> Renderer:
    return replace(renderer, template=ChatTemplate(source, named_tokens=renderer.tokenizer.named_tokens, **limits))


@pytest.fixture(scope="module")
def renderer(chatml_folder: Path) -> Renderer:
    return renderer_of(chatml_folder)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_d1_a_message_beyond_the_limits_of_rendering_is_dropped(renderer: Renderer, role: Any) -> None:
    small = with_template(renderer, CHATML, max_characters=100_000)
    turns = {"system": Message("system", "s"), "user": Message("user", "q"), "assistant": Message("assistant", "a")}
    turns[role] = structs.replace(turns[role], content="fox " * 30_000)
    outcomes = small.prove([GOOD, talk(*turns.values()), GOOD])
    assert [isinstance(outcome, Drop) for outcome in outcomes] == [False, True, False]
    assert isinstance(outcomes[1], Drop)
    assert outcomes[1].reason == "too_long"
    assert "100,000 characters" in outcomes[1].detail


def test_r20_a_row_of_twelve_million_letters_leaves_the_run_going(renderer: Renderer) -> None:
    rows = [Conversation(pair("q", "x" * 12_000_000), Address("rows.jsonl", 7)), GOOD]
    ledger = Ledger()
    kept = list(proven_rows(lambda reading: _entered(reading, rows), renderer, ledger, max_seq_length=512))
    assert len(kept) == 1
    assert [str(drop_sample.address) for drop_sample in ledger.drop_samples["too_long"]] == ["rows.jsonl:7"]


def _entered(reading: Ledger, rows: list[Conversation]) -> Iterator[Conversation]:
    for row in rows:
        reading.enter(1)
        yield row


def test_r20_a_tool_description_or_a_deep_schema_is_the_rows_doing_too(renderer: Renderer) -> None:
    tools = "{%- if tools -%}{{- tools | tojson -}}{%- endif -%}"
    macro = (
        "{%- macro show(v) -%}{%- if v is mapping -%}{%- for k in v -%}{{- show(v[k]) -}}{%- endfor -%}"
        "{%- endif -%}{%- endmacro -%}{%- for t in tools or [] -%}{{- show(t) -}}{%- endfor -%}"
    )
    wide = structs.replace(GOOD, tools=({"name": "f", "description": "x" * 200_000},))
    assert dropped(with_template(renderer, tools + CHATML, max_characters=100_000), wide).reason == "too_long"
    deep = structs.replace(GOOD, tools=({"name": "f", "parameters": nested(80)},))
    assert dropped(with_template(renderer, macro + CHATML), deep).reason == "too_long"


def test_r20_a_template_that_meets_the_limits_by_itself_still_ends_the_run(renderer: Renderer) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + CHATML
    large = talk(*pair("q", "x" * 200_000))
    for row in (GOOD, large):
        with pytest.raises(TemplateError):
            with_template(renderer, endless).prove([row])


def test_r20_a_small_row_that_meets_the_limits_is_the_templates_doing(renderer: Renderer) -> None:
    doubles = CHATML.replace("message['content']", "message['content'] * 1000000", 1)
    with pytest.raises(TemplateError):
        with_template(renderer, doubles).prove([talk(*pair("some words", "others"))])


def many(turns: int) -> Conversation:
    return talk(*(message for n in range(turns // 2) for message in pair(f"u{n}", "ok")))


@pytest.mark.parametrize("too_long", ["drop", "cut", "split"])
def test_d2_8000_turns_of_a_word_take_under_5_seconds(renderer: Renderer, too_long: Any) -> None:
    row = many(8_000)
    bounded = replace(renderer, most_tokens=1024, too_long=too_long)
    proven(bounded, GOOD)
    start = time.process_time()
    (outcome,) = bounded.prove([row])
    assert time.process_time() - start < 5
    if too_long == "drop":
        assert isinstance(outcome, Drop)
        assert outcome.reason == "too_long"
        assert "1024" in outcome.detail
        return
    assert not isinstance(outcome, Drop)
    (one,) = outcome.examples
    assert 900 < len(one.ids) <= 1024
    (change,) = [change for change in outcome.changes if change.reason == "turns_cut"]
    assert f"{len(one.turns)} of 4000 trained turns stay" in change.detail


def test_d2_the_turns_that_stay_are_those_that_were_cut_to_before(renderer: Renderer) -> None:
    """A long row that is never rendered to its end gives what cutting the whole proven row gives."""
    row = many(200)

    def kept(one: Renderer) -> list[list[int]]:
        rows = proven_rows(lambda reading: _entered(reading, [row]), one, Ledger(), max_seq_length=400, too_long="cut")
        return [example.ids.tolist() for _, made in rows for example in made]

    (whole,) = proven(renderer, row)
    (cut,) = kept(renderer)
    assert cut == whole.ids.tolist()[: len(cut)]
    assert len(cut) == max(turn.reply_end for turn in whole.turns if turn.reply_end <= 400)


def test_d2_cost_is_linear_until_the_length_is_known(renderer: Renderer) -> None:
    """Renderings of a row that is too long are counted: they do not grow with its turns."""

    class Counting(ChatTemplate):
        count = 0

        def render(self, *args: Any, **rest: Any) -> str:
            Counting.count += 1
            return super().render(*args, **rest)

    counted = replace(
        renderer, template=Counting(CHATML, named_tokens=renderer.tokenizer.named_tokens), most_tokens=256
    )
    counted.prove([GOOD])
    counts = []
    for turns in (200, 2_000):
        Counting.count = 0
        assert dropped(counted, many(turns)).reason == "too_long"
        counts.append(Counting.count)
    assert counts == [1, 1]


def test_d2_a_long_row_that_fits_has_the_ids_it_had(renderer: Renderer) -> None:
    row = many(4 * FEW_TURNS)
    (plain,) = proven(renderer, row)
    (bounded,) = proven(replace(renderer, most_tokens=100_000), row)
    assert bounded.ids.tolist() == plain.ids.tolist()
    assert bounded.turns == plain.turns


def test_d2_a_row_near_the_limit_is_left_to_the_packer(renderer: Renderer) -> None:
    (one,) = proven(renderer, many(100))
    for limit in (len(one.ids), len(one.ids) - 1):
        ledger = Ledger()
        rows = list(proven_rows(lambda reading: _entered(reading, [many(100)]), renderer, ledger, max_seq_length=limit))
        assert (len(rows), ledger.rows_dropped) == ((1, 0) if limit == len(one.ids) else (0, 1))


def test_d2_a_huge_document_is_not_encoded_whole(renderer: Renderer) -> None:
    text = talk(Message("text", "words " * 1_000_000))
    bounded = replace(renderer, most_tokens=256)
    start = time.process_time()
    assert dropped(bounded, text).reason == "too_long"
    assert time.process_time() - start < 1


def test_d2_a_prefix_shows_that_a_text_is_too_long(chatml_folder: Path) -> None:
    tokenizer = Tokenizer.load(chatml_folder)
    text = "some words " * 2_000
    tokens = len(tokenizer.encode([text])[0])
    assert longer_than(text, tokens - 100, tokenizer)
    assert not longer_than(text, tokens, tokenizer)


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 490, 900, 3_000])
def test_d5_arguments_nested_too_deeply_are_dropped(renderer: Renderer, levels: int) -> None:
    turn = Message("assistant", None, tool_calls=(ToolCall("f", nested(levels)),))
    for row in (
        talk(Message("user", "a"), turn),
        structs.replace(GOOD, tools=(nested(levels),)),
        structs.replace(GOOD, template_arguments=nested(levels)),
    ):
        drop = dropped(renderer, row)
        assert drop.reason == "nested_too_deep"
        assert str(levels) in drop.detail
        prompt = renderer.prompt(row)
        assert isinstance(prompt, Drop)


def test_d5_what_is_nested_as_deeply_as_allowed_is_handled(chatml_folder: Path, renderer: Renderer) -> None:
    from tests.support.serving_oracle import TOOLS

    row = talk(Message("user", "a"), Message("assistant", None, tool_calls=(ToolCall("f", nested(DEPTH_MAX)),)))
    assert len(proven(with_template(renderer, TOOLS), row)) == 1
    assert size_of(row).nesting == DEPTH_MAX


def test_d6_deep_rows_end_alike_whatever_the_workers(renderer: Renderer) -> None:
    def rows() -> Iterator[Conversation]:
        for number in range(ROWS_WORTH_WORKERS + 10):
            deep = nested(900) if number % 500 == 3 else {}
            yield structs.replace(GOOD, address=Address("rows.jsonl", number), template_arguments=deep)

    def result(workers: int) -> tuple[list[Drop | Change], list[int]]:
        entries: list[Drop | Change] = []
        kept = examples(rows(), renderer, Ledger(listener=entries.append), workers=workers)
        return entries, [row.address.number for row, _ in kept]

    one, two = result(1), result(2)
    assert one == two
    assert {entry.reason for entry in one[0]} == {"nested_too_deep"}
    assert len(one[0]) == 9
