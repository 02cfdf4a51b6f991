"""The oracle of benchmarks/masks: it passes right Examples and catches each mutation of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

pytest.importorskip("transformers", reason="the oracle asks transformers, which is not here")

from benchmarks.masks.acceptance import accepts
from benchmarks.masks.checkpoints import BaseTokenizer, control_tokens_in, literals_of
from benchmarks.masks.escaped import judge_escaped
from benchmarks.masks.oracle import Facts, judge
from benchmarks.masks.pairs import Workload, pairs_of, spelling_tokenizer, tokens_of
from benchmarks.masks.rewritten import judge_rewritten
from benchmarks.masks.run import TRAPS, main, read_cases
from benchmarks.masks.served import Server, Way
from benchmarks.masks.trl_compare import differences
from benchmarks.masks.written import is_written
from tokenizers import Tokenizer as FastTokenizer

from tutelage.config import RenderSettings
from tutelage.types import Address, Conversation, Example, Message, ToolCall, Turn

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') -}}
{%- for call in message['tool_calls'] or [] -%}
{{- '<tool_call>' + (call['function'] | tojson) + '</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
THINKER = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}
"""
NO_SYSTEM = """\
{%- for message in messages if message['role'] != 'system' -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
WAY = Way()
ADDRESS = Address("rows.jsonl", 1)
TALK = Conversation(
    (
        Message("user", "Where is the blue lamp?"),
        Message("assistant", "Behind the old shop."),
        Message("user", "And order 4711?"),
        Message("assistant", "Nobody returns it."),
    ),
    ADDRESS,
)


@dataclass(frozen=True)
class Bench:
    """A template with the tiny vocabulary."""

    server: Server
    facts: Facts

    def opinion(self, conversation: Conversation, *examples: Example) -> list[str]:
        """The promises found broken."""
        return [finding.promise for finding in judge(conversation, examples, self.server, self.facts).findings]

    def right(self, conversation: Conversation) -> Example:
        """The Example of a template that only appends: the finished text, each reply through its stop."""
        text = self.server.text(conversation, len(conversation.messages), WAY, prompt=False)
        ids = self.facts.encode(str(text))
        weights = np.zeros(len(ids), dtype=np.float32)
        turns = []
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant":
                start = len(self.facts.encode(str(self.server.text(conversation, index, WAY, prompt=True))))
                end = next(n for n in range(start, len(ids)) if ids[n] in self.facts.stop_ids) + 1
                weights[start:end] = 1.0
                turns.append(Turn(index, start, end))
        return Example(conversation.address, 0, np.asarray(ids, dtype=np.int32), weights, tuple(turns))


def bench(template: str, folder: Path) -> Bench:
    tokenizer = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    stop = tokenizer.token_to_id("<|im_end|>")
    assert stop is not None
    return Bench(Server(spelling_tokenizer(template)), Facts(tokenizer, frozenset({stop}), template))


@pytest.fixture
def chatml(tiny_tokenizer_folder: Path) -> Bench:
    return bench(CHATML, tiny_tokenizer_folder)


def with_spans(example: Example, *turns: Turn) -> Example:
    weights = np.zeros(len(example.ids), dtype=np.float32)
    for turn in turns:
        weights[turn.prompt_end : turn.reply_end] = 1.0
    return replace(example, turns=turns, weights=weights)


def moved(example: Example, *, start: int = 0, end: int = 0) -> Example:
    first, *rest = example.turns
    return with_spans(
        example, replace(first, prompt_end=first.prompt_end + start, reply_end=first.reply_end + end), *rest
    )


def with_extra_first_id(example: Example) -> Example:
    turns = [replace(turn, prompt_end=turn.prompt_end + 1, reply_end=turn.reply_end + 1) for turn in example.turns]
    longer = replace(example, ids=np.concatenate([example.ids[:1], example.ids]))
    return with_spans(longer, *turns)


def without_stop(example: Example) -> Example:
    last = example.turns[-1]
    shorter = replace(example, ids=example.ids[: last.reply_end - 1], turns=())
    return with_spans(shorter, *example.turns[:-1], replace(last, reply_end=last.reply_end - 1))


def with_replies_exchanged(example: Example) -> Example:
    first, second = example.turns
    ids = example.ids.tolist()
    one, two = ids[first.prompt_end : first.reply_end], ids[second.prompt_end : second.reply_end]
    between = ids[first.reply_end : second.prompt_end]
    made = ids[: first.prompt_end] + two + between + one
    middle = first.prompt_end + len(two)
    turns = (
        replace(first, reply_end=middle),
        replace(second, prompt_end=middle + len(between), reply_end=len(made)),
    )
    return with_spans(replace(example, ids=np.asarray(made, dtype=np.int32)), *turns)


def with_weight_at(example: Example, position: int, weight: float) -> Example:
    weights = example.weights.copy()
    weights[position] = weight
    return replace(example, weights=weights)


MUTANTS: dict[str, Callable[[Example], Example]] = {
    "a span moved by one": lambda one: moved(one, start=1, end=1),
    "the header trained": lambda one: moved(one, start=-3),
    "the reply's first token left out": lambda one: moved(one, start=1),
    "the newline after the stop trained": lambda one: moved(one, end=1),
    "the stop not in the span": lambda one: moved(one, end=-1),
    "the stop gone": without_stop,
    "two replies exchanged": with_replies_exchanged,
    "a first id doubled": with_extra_first_id,
    "a token of the user trained": lambda one: with_weight_at(one, 2, 1.0),
    "a token of the header trained by weight alone": lambda one: with_weight_at(one, one.turns[0].prompt_end - 1, 1.0),
    "the stop untrained by weight alone": lambda one: with_weight_at(one, one.turns[0].reply_end - 1, 0.0),
    "half the weight": lambda one: replace(one, weights=one.weights / 2),
    "a turn left out": lambda one: with_spans(one, one.turns[1]),
    "one turn over the next": lambda one: with_spans(one, Turn(1, one.turns[0].prompt_end, one.turns[1].reply_end)),
    "a message's number exchanged": lambda one: with_spans(one, replace(one.turns[0], message=3), one.turns[1]),
    "the first token trained": lambda one: with_weight_at(one, 0, 1.0),
}


def test_a_right_example_is_called_right(chatml: Bench) -> None:
    assert chatml.opinion(TALK, chatml.right(TALK)) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutation_is_called_wrong(chatml: Bench, name: str) -> None:
    assert chatml.opinion(TALK, MUTANTS[name](chatml.right(TALK)))


def test_a_turn_trained_twice_is_called_wrong(chatml: Bench) -> None:
    right = chatml.right(TALK)
    assert "turns" in chatml.opinion(TALK, right, replace(with_spans(right, right.turns[0]), part=1))


def test_a_reply_with_other_words_is_called_wrong(chatml: Bench) -> None:
    other = structs.replace(TALK, messages=(*TALK.messages[:3], Message("assistant", "Nobody cannot return it.")))
    assert "own words" in chatml.opinion(TALK, chatml.right(other))


def test_ids_that_the_vocabulary_would_not_make_are_called_wrong(chatml: Bench) -> None:
    right = chatml.right(TALK)
    last = right.turns[-1]
    spelled = [one for letter in "Nobody returns it." for one in chatml.facts.encode(letter)]
    stop = right.ids[last.reply_end - 1 : last.reply_end].tolist()
    ids = np.asarray([*right.ids[: last.prompt_end].tolist(), *spelled, *stop], dtype=np.int32)
    mutant = with_spans(replace(right, ids=ids, turns=()), right.turns[0], replace(last, reply_end=len(ids)))
    assert chatml.opinion(TALK, mutant) == ["canonical ids"]


def test_arguments_encoded_twice_are_called_wrong(chatml: Bench) -> None:
    call = ToolCall("lookup", {"city": "Lyon"})
    asked = Message("user", "Where is the manual?")
    row = Conversation((asked, Message("assistant", "", tool_calls=(call,))), ADDRESS)
    assert chatml.opinion(row, chatml.right(row)) == []
    doubled = '<tool_call>{"name": "lookup", "arguments": "{\\"city\\": \\"Lyon\\"}"}</tool_call>'
    written = Conversation((asked, Message("assistant", doubled)), ADDRESS)
    assert "encoded twice" in chatml.opinion(row, chatml.right(written))


def test_a_greeting_may_be_left_as_context(chatml: Bench) -> None:
    greeted = structs.replace(TALK, messages=(Message("assistant", "Hello."), *TALK.messages))
    right = chatml.right(greeted)
    assert chatml.opinion(greeted, with_spans(right, *right.turns[1:])) == []
    assert chatml.opinion(greeted, with_spans(right, *right.turns[:-1]))


def built(bench_: Bench, conversation: Conversation, reply: str) -> Example:
    prompt = bench_.facts.encode(str(bench_.server.text(conversation, 1, WAY, prompt=True)))
    ids = prompt + bench_.facts.encode(reply)
    example = Example(ADDRESS, 0, np.asarray(ids, dtype=np.int32), np.zeros(len(ids), dtype=np.float32), ())
    return with_spans(example, Turn(1, len(prompt), len(ids)))


@pytest.mark.parametrize(
    ("reply", "is_right"),
    [
        ("The driver.\n</think>\n\nTwo tickets.<|im_end|>", True),
        ("The driver.\n\nTwo tickets.<|im_end|>", False),
        ("</think>\n\nTwo tickets.<|im_end|>", False),
        ("Two tickets.\n</think>\n\nThe driver.<|im_end|>", False),
        ("The driver.\n</think>\n\nTwo tickets. refund<|im_end|>", False),
    ],
)
def test_a_built_reply_holds_reasoning_close_and_content_in_order(
    tiny_tokenizer_folder: Path, reply: str, is_right: bool
) -> None:
    thinker = bench(THINKER, tiny_tokenizer_folder)
    row = Conversation(
        (Message("user", "Say."), Message("assistant", "Two tickets.", reasoning="The driver.")), ADDRESS
    )
    assert (thinker.opinion(row, built(thinker, row, reply)) == []) is is_right


INSIDE = THINKER.replace(
    "'\\n' + message", "'\\n' + ('<think>\\n' if message['role'] == 'assistant' and loop.last else '') + message"
)
IN_WORDS = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + (m.reasoning_content + '\\nSo:\\n' if m.reasoning_content else '') + m.content -}}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\nMy reasoning:\\n' -}}{%- endif -%}
"""


@pytest.mark.parametrize(
    ("thought", "reply", "is_right"),
    [
        (None, "\n</think>\n\nTwo tickets.<|im_end|>", True),
        (None, "Two tickets.<|im_end|>", False),
        (None, "Two tickets.\n</think>\n\n<|im_end|>", False),
        ("The driver.", "The driver.\n</think>\n\nTwo tickets.<|im_end|>", True),
        ("The driver.", "\n</think>\n\nTwo tickets.<|im_end|>", False),
        ("The driver.", "Two tickets.<|im_end|>", False),
    ],
)
def test_m7_a_turn_that_is_written_inside_the_opened_block_must_leave_it(
    tiny_tokenizer_folder: Path, thought: str | None, reply: str, is_right: bool
) -> None:
    inside = bench(INSIDE, tiny_tokenizer_folder)
    row = Conversation((Message("user", "Say."), Message("assistant", "Two tickets.", reasoning=thought)), ADDRESS)
    assert (inside.opinion(row, built(inside, row, reply)) == []) is is_right
    assert accepts(row, inside.server, None).kind == ("accepted" if thought else "no reasoning")


@pytest.mark.parametrize(
    ("template", "reply", "is_right"),
    [
        (IN_WORDS, "\nSo:\nTwo tickets.<|im_end|>", True),
        (IN_WORDS, "\nThus:\nTwo tickets.<|im_end|>", False),
        (IN_WORDS.replace("My reasoning:", "My answer:"), "\nSo:\nTwo tickets.<|im_end|>", False),
    ],
)
def test_m7_reasoning_in_words_is_left_as_the_template_leaves_it(
    tiny_tokenizer_folder: Path, template: str, reply: str, is_right: bool
) -> None:
    worded = bench(template, tiny_tokenizer_folder)
    row = Conversation((Message("user", "Say."), Message("assistant", "Two tickets.")), ADDRESS)
    assert (worded.opinion(row, built(worded, row, reply)) == []) is is_right


@pytest.mark.parametrize(
    ("reply", "is_right"),
    [
        ("The driver.\nSo:\nTwo tickets.<|im_end|>", True),
        ("The driver.\nThus:\nTwo tickets.<|im_end|>", False),
        ("\nSo:\nTwo tickets.<|im_end|>", False),
        ("Two tickets.\nSo:\nThe driver.<|im_end|>", False),
        ("<think>The driver.</think>\nSo:\nTwo tickets.<|im_end|>", False),
    ],
)
def test_m7_reasoning_of_the_content_may_be_handed_over_in_its_field(
    tiny_tokenizer_folder: Path, reply: str, is_right: bool
) -> None:
    worded = bench(IN_WORDS, tiny_tokenizer_folder)
    row = Conversation(
        (Message("user", "Say."), Message("assistant", "<think>The driver.</think>Two tickets.")), ADDRESS
    )
    example = built(worded, row, reply)
    assert judge_rewritten(row, [example], worded.server, worded.facts, opens=False).is_right is is_right
    assert worded.opinion(row, example) != []


def test_m6_a_block_may_be_opened_by_an_argument_where_that_is_asked(tiny_tokenizer_folder: Path) -> None:
    template = CHATML.replace(
        "(message['content'] or '')",
        "('<think>' + message['reasoning_content'] + '</think>' "
        "if message['reasoning_content'] else '') + message['content']",
    ).replace(
        "assistant\\n' -}}{%- endif", "assistant\\n' + ('' if enable_thinking else '<think></think>') -}}{%- endif"
    )
    switched = bench(template, tiny_tokenizer_folder)
    row = Conversation(
        (Message("user", "Say."), Message("assistant", "Two tickets.", reasoning="The driver.")), ADDRESS
    )
    asked = switched.server.keep(structs.replace(row, template_arguments={"enable_thinking": True}))
    example = built(switched, asked, "<think>The driver.</think>Two tickets.<|im_end|>")

    def is_right(*, opens: bool) -> bool:
        return judge_rewritten(row, [example], switched.server, switched.facts, opens=opens).is_right

    assert is_right(opens=True)
    assert not is_right(opens=False)
    unreasoned = built(switched, asked, "Two tickets.<|im_end|>")
    assert not judge_rewritten(row, [unreasoned], switched.server, switched.facts, opens=True).is_right
    open_anyway = bench(template.replace("'<think></think>'", "'<br>'"), tiny_tokenizer_folder)
    other = built(open_anyway, open_anyway.server.keep(asked), "<think>The driver.</think>Two tickets.<|im_end|>")
    assert not judge_rewritten(row, [other], open_anyway.server, open_anyway.facts, opens=True).is_right


def test_a_name_in_the_list_of_tools_is_no_written_call(tiny_tokenizer_folder: Path) -> None:
    tools = ({"type": "function", "function": {"name": "refund", "parameters": {}}},)
    caller = Message("assistant", "", tool_calls=(ToolCall("refund", {}),))
    row = Conversation((Message("user", "Say."), caller), ADDRESS, tools)
    listed = "{%- if tools -%}{{- tools | tojson -}}{%- endif -%}" + CHATML
    assert is_written(row, bench(listed, tiny_tokenizer_folder).server)
    mute = listed.replace("message['tool_calls'] or []", "[]")
    assert not is_written(row, bench(mute, tiny_tokenizer_folder).server)


def test_what_ends_every_conversation_is_no_part_of_a_reply(tiny_tokenizer_folder: Path) -> None:
    """A call without a stop, and an instruction behind every conversation whose stop is not the call's."""
    instruction = "<|im_start|>system\nAct.<|im_end|>"
    template = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content -}}"
        "{%- if m.tool_calls -%}{{- ' do ' + m.tool_calls[0].function.name + '\\n' -}}"
        "{%- else -%}{{- '<|im_end|>' -}}{%- endif -%}{%- endfor -%}"
        f"{{{{- {instruction!r} -}}}}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    acting = bench(template, tiny_tokenizer_folder)
    row = Conversation(
        (Message("user", "Say."), Message("assistant", "Two.", tool_calls=(ToolCall("refund", {}),))), ADDRESS
    )
    assert acting.opinion(row, built(acting, row, "Two. do refund<|im_end|>")) == []
    assert "standing end" in acting.opinion(row, built(acting, row, f"Two. do refund\n{instruction}"))


def test_acceptance_is_the_templates_own(tiny_tokenizer_folder: Path) -> None:
    plain = bench(CHATML, tiny_tokenizer_folder).server
    with_system = structs.replace(TALK, messages=(Message("system", "Answer as a driver."), *TALK.messages))
    assert accepts(TALK, plain, None).kind == "accepted"
    assert accepts(with_system, bench(NO_SYSTEM, tiny_tokenizer_folder).server, None).kind == "not accepted"
    assert accepts(TALK, bench(THINKER, tiny_tokenizer_folder).server, None).kind == "no reasoning"
    reasoned = structs.replace(
        TALK, messages=(TALK.messages[0], structs.replace(TALK.messages[1], reasoning="The driver knows."))
    )
    assert accepts(reasoned, plain, None).kind == "not accepted"
    assert accepts(reasoned, bench(THINKER, tiny_tokenizer_folder).server, None).kind == "accepted"


def test_a_spelled_control_token_must_stay_ordinary_text(chatml: Bench) -> None:
    control = re.compile(r"<\|im_start\|>|<\|im_end\|>")
    row = structs.replace(TALK, messages=(Message("user", "Say <|im_end|> twice."), TALK.messages[1]))
    read_as_token = chatml.right(row)
    found = judge_escaped(row, [read_as_token], chatml.server, chatml.facts, control)
    assert [finding.promise for finding in found.findings] == ["control ids"]
    encode, start = chatml.facts.encode, len(chatml.facts.encode("<|im_start|>user\nSay "))
    letters = [one for part in ("<|im_", "end|>") for one in encode(part)]
    stop = read_as_token.ids.tolist().index(next(iter(chatml.facts.stop_ids)))
    assert stop == start
    ids = [*read_as_token.ids[:stop].tolist(), *letters, *read_as_token.ids[stop + 1 :].tolist()]
    (turn,) = read_as_token.turns
    grown = len(letters) - 1
    turn = replace(turn, prompt_end=turn.prompt_end + grown, reply_end=turn.reply_end + grown)
    escaped = with_spans(replace(read_as_token, ids=np.asarray(ids, dtype=np.int32), turns=()), turn)
    assert judge_escaped(row, [escaped], chatml.server, chatml.facts, control).is_right


OURS = {"turns": [[1, [1, 2, 3], [4, 9]], [3, [1, 2, 3, 4, 9, 8, 5], [6, 9]]]}
SEQUENCE = [1, 2, 3, 4, 9, 8, 5, 6, 9, 8]


@pytest.mark.parametrize(
    ("ids", "trained", "kinds"),
    [
        (SEQUENCE, [3, 4, 7, 8], []),
        (SEQUENCE, [3, 4, 5, 7, 8, 9], ["trains what follows the stop token"]),
        (SEQUENCE, [2, 3, 4, 6, 7, 8], ["trains the end of the prompt (the header of the turn)"]),
        (SEQUENCE, [0, 3, 4, 7, 8], ["trains text of other turns"]),
        (SEQUENCE, [3, 7, 8], ["does not train the stop token"]),
        (SEQUENCE, [7, 8], ["does not train a turn"]),
        (
            SEQUENCE[:3],
            [2],
            ["trains another text or other ids as the reply", "trains a turn on a context that no server feeds"],
        ),
        ([7, *SEQUENCE], [4, 5], ["trains a turn on a context that no server feeds"] * 2),
    ],
)
def test_differences_from_another_tool_are_told_apart(ids: list[int], trained: list[int], kinds: list[str]) -> None:
    assert list(differences(OURS, {"mode": "assistant", "ids": ids, "trained": trained})) == kinds


def test_control_and_stop_tokens_come_from_the_template() -> None:
    assert control_tokens_in(literals_of(CHATML)) == ("<|im_start|>", "<|im_end|>")
    assert tokens_of(CHATML, Server(spelling_tokenizer(CHATML)))[1] == ("<|im_end|>", "</s>")
    unasked = CHATML.replace("{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}", "")
    unasked += "{{- '<|im_start|>assistant\\n<|start|>' -}}"
    assert tokens_of(unasked, Server(spelling_tokenizer(unasked)))[1] == ("<|im_end|>", "</s>")
    assert control_tokens_in("<s>[INST] <think> a<b </s><start_of_turn><｜User｜><|turn>x<turn|>") == (
        "<s>",
        "[INST]",
        "</s>",
        "<start_of_turn>",
        "<｜User｜>",
        "<|turn>",
        "<turn|>",
    )


def test_no_trap_is_wrong_under_a_plain_template(tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "chatml.jinja"
    template.write_text(CHATML, encoding="utf-8")
    cases, _ = read_cases(TRAPS)
    base = BaseTokenizer("tiny", tiny_tokenizer_folder / "tokenizer.json")
    result = pairs_of(Workload(template, tuple(cases), (base,), (("default", RenderSettings()),)))
    assert [(pair.case, pair.detail) for pair in result.pairs if pair.verdict == "wrong"] == []
    assert sum(pair.verdict == "proven" for pair in result.pairs) > 50
    spelled = {pair.case for pair in result.pairs if pair.acceptance == "control token"}
    assert "question spells ChatML" in spelled
    assert all(pair.verdict == "dropped" for pair in result.pairs if pair.case in spelled)


def test_each_trap_has_a_name_of_its_own() -> None:
    cases, dropped = read_cases(TRAPS)
    names = [one.name for one in cases] + [name for name, _ in dropped]
    assert len(set(names)) == len(names) > 80


def test_an_absent_folder_is_skipped_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--templates", str(tmp_path / "none")]) == 0
    assert "skipped" in capsys.readouterr().out
