"""Mutants of the code that decides what is trained: each is seen by a battery of templates, rows and tokenizers.

A mutant is the source of the room with one expression rewritten, imported under another name. It is caught where the
judge (which knows nothing of that source) finds an outcome wrong, where the renderer's own gate fails, or where a row
that is proven otherwise is now dropped by one of the renderer's witnesses.
"""

from __future__ import annotations

import collections
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import tutelage.render
from tests.support.conversations import TABLE, answer, talk, user
from tests.support.judge import NAMED, Judge, Wrong, tokenizer_of
from tests.support.template_grammar import Grammar
from tutelage.render import ChatTemplate, Tokenizer
from tutelage.types import Conversation, Drop, Proven

ROOM = Path(tutelage.render.__file__).parent
MODULES = (
    *("text_spans", "chat_template.reasoning", "prompt_boundary", "missing_stop", "opened_reasoning"),
    *("turns", "special_tokens", "sequences", "loss_mask", "renderer"),
)


@dataclass(frozen=True)
class Mutant:
    """One expression of one module, rewritten; `seen_by` is who has to see it: "judge", "witness" or "gate"."""

    title: str
    module: str
    old: str
    new: str
    seen_by: str = "judge"

    @property
    def name(self) -> str:
        return "mutant_" + re.sub(r"\W+", "_", self.title)


MUTANTS = (
    Mutant("the role header is trained", "loss_mask", "weights[start:end] = ", "weights[start - 1 : end] = ", "gate"),
    Mutant(
        "a reply starts one letter early",
        "turns",
        "body = finished[start : ",
        "body = finished[start - 1 : ",
        "judge",
    ),
    Mutant("the stop is left out", "turns", "reply.suffix[: match.end()]", "reply.suffix[: match.start()]", "witness"),
    Mutant(
        "the line end after the stop is trained",
        "turns",
        "suffix[: match.end()]",
        "suffix[: match.end() + 1]",
        "witness",
    ),
    Mutant("the stop has no weight", "loss_mask", "weights[start:end] = ", "weights[start : end - 1] = ", "gate"),
    Mutant(
        "every reply begins behind the prompt",
        "text_spans",
        "    if not ending.strip():\n        return None\n",
        '    return ""\n',
    ),
    Mutant(
        "a mark of history is part of the reply", "text_spans", "    if not ending.strip():\n        return None\n", ""
    ),
    Mutant("no words are foreign", "text_spans", "if len(positions) else None", "if len(positions) < 0 else None"),
    Mutant("words may stand twice", "text_spans", "np.any(np.diff(offsets) < 0)", "np.any(np.diff(offsets) < -1e6)"),
    Mutant(
        "the prompt is cut as the whole text is",
        *("renderer", "prompt_ids, full_ids = ids[turn.prompt], ids[full_text]"),
        "prompt_ids, full_ids = ids[full_text][: len(ids[turn.prompt])], ids[full_text]",
        "witness",
    ),
    Mutant(
        "a border that moves is not seen",
        "prompt_boundary",
        "if full_ids[: len(prompt_ids)] == prompt_ids:",
        "if True:",
        "witness",
    ),
    Mutant(
        "only lengths are compared", "sequences", "sequence[:end] == turn.prompt_ids and ", "len(sequence) >= end and "
    ),
    Mutant("a turn may stand on another's tokens", "sequences", "len(turn.prompt_ids) >= end and ", "", "gate"),
    Mutant(
        "a missing stop is appended twice",
        "renderer",
        "[*emitted_ids, self.tokenizer.stop_id]",
        "[*emitted_ids, *[self.tokenizer.stop_id] * 2]",
        "witness",
    ),
    Mutant("a missing stop stays away", "renderer", "if not turn.stop_written:", "if False:", "witness"),
    Mutant(
        "words are found by their looks",
        *("text_spans", "first, last = start + int(own_positions[0]), start + int(own_positions[-1]) + 1"),
        'found = "".join(traced.text[start + int(one)] for one in own_positions)\n'
        "    first = traced.text.find(found)\n    last = first + len(found)",
        "any",
    ),
    Mutant(
        "the weight of the first turn for all",
        "loss_mask",
        "weights[start:end] = turn.weight",
        "weights[start:end] = turns[0].weight",
    ),
    Mutant(
        "the prompt of the turn before",
        "turns",
        "prompt = row.render(index, ",
        "prompt = row.render(max(1, index - 2), ",
    ),
    Mutant(
        "a spelled control token is not seen",
        "special_tokens",
        "if match := self.pattern.search(text):",
        "if match := None:",
    ),
    Mutant("a text that is not decoded again", "renderer", "if decoded[id(turn)] != turn.text:", "if False:"),
    Mutant(
        "the opened block is not closed",
        "chat_template.reasoning",
        r'return f"{inner}\n{self.closing}\n\n"',
        'return f"{inner}\\n\\n"',
    ),
    Mutant(
        "a shape is believed too soon",
        "turns",
        "if text == content or text in (",
        "if content.strip() in text or text in (",
    ),
    Mutant(
        "no turn is an opening turn",
        "renderer",
        "if has_question or finding.reason not in NO_OPENING:",
        "if finding.reason:",
        "witness",
    ),
)

ECHO = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.previtem -%}{{- '> ' + loop.previtem.content + '\\n' -}}{%- endif -%}
{{- m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
TWICE = ECHO.replace("'> ' + loop.previtem.content + '\\n'", "m.content + ': '")
BEHIND = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content -}}
{%- if m.role == 'assistant' and loop.previtem -%}{{- ' < ' + loop.previtem.content -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
SEEN = """\
{%- for m in messages -%}
{{- m.role + ': ' -}}{%- set words = m.content -%}{{- words + ('' if loop.last else ' (seen)') + '\\n' -}}
{%- endfor -%}
"""
ROWS = (
    *TABLE,
    talk(user("qn1z"), answer("\n qn2z"), user("qn3z"), answer("\n\nqn4z")),
    talk(user("a"), answer("b"), user("a"), answer("b"), user("a"), answer("b")),
    talk(user("qn1z<|im_end|>\n<|im_start|>assistant\n"), answer("qn2z")),
    talk(user("qn1z"), answer("qn2z</s>qn3z")),
    talk(user("qn1z"), answer("Hello"), user("qn2z"), answer("two  spaces ")),
)
THINKS = {"reasoning": "reasoning_content"}
BATTERY = (
    Judge(Grammar(calls="object", **THINKS), "gpt2"),
    Judge(Grammar(style="headers", trim="both", bos="written", separator="", calls="text", **THINKS), "lines"),
    Judge(Grammar(style="words", stop="none", separator=" "), "unsplit"),
    Judge(Grammar(style="words", stop="eos", prompt="longer"), "gpt2"),
    Judge(Grammar(style="brackets", stop="eos", bos="written", system="merged"), "space_first"),
    Judge(Grammar(style="tight", separator=""), "space_always"),
    Judge(Grammar(style="tight", separator="\n", content="parts"), "gpt2"),
    Judge(Grammar(prompt="opens", history="drops_reasoning", **THINKS), "gpt2"),
    Judge(Grammar(prompt="opens", reasoning="cut"), "lines"),
    Judge(Grammar(prompt="closes", empty_block="yes", history="drops_reasoning", **THINKS), "gpt2"),
    Judge(Grammar(prompt="shorter", system="dropped"), "unsplit"),
    Judge(Grammar(prompt="longer", stop="differs", history="marks_earlier"), "gpt2"),
    Judge(Grammar(stop="last_only", history="last_question"), "lines"),
    Judge(Grammar(prompt="ignored", stop="none"), "unsplit"),
    Judge(Grammar(), "gpt2", source=ECHO),
    Judge(Grammar(), "gpt2", source=BEHIND),
    Judge(Grammar(), "gpt2", source=TWICE),
    Judge(Grammar(style="words", stop="none"), "gpt2", source=SEEN),
    Judge(Grammar(), "lossy"),
)


def house_of(folder: Path, mutant: Mutant | None) -> Any:
    """The renderer's class from the room's source, rewritten as the mutant says and imported under its name."""
    name = "mutant_of_nothing" if mutant is None else mutant.name
    package = folder / name
    for folder in (package, package / "chat_template"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    for module in MODULES:
        source = (ROOM / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        if mutant is not None and mutant.module == module:
            assert source.count(mutant.old) == 1, f"{module}.py has no single {mutant.old!r}: write this mutant anew"
            source = source.replace(mutant.old, mutant.new)
        source = re.sub(
            rf"from tutelage\.render\.({'|'.join(map(re.escape, MODULES))}) import", rf"from {name}.\1 import", source
        )
        (package / f"{module.replace('.', '/')}.py").write_text(source, encoding="utf-8")
    importlib.invalidate_caches()
    try:
        return importlib.import_module(f"{name}.renderer").Renderer
    finally:
        for module in MODULES:
            sys.modules.pop(f"{name}.{module}", None)


def tokenizer_for(judge: Judge) -> Tokenizer:
    fast = tokenizer_of(judge.kind)
    return Tokenizer(fast, NAMED, judge.stop_ids, fast.get_vocab_size(), {}, Path())


@cache
def checkpoints() -> tuple[tuple[Judge, Tokenizer, ChatTemplate], ...]:
    return tuple((one, tokenizer_for(one), ChatTemplate(one.template, named_tokens=NAMED)) for one in BATTERY)


Outcome = Proven | Drop | AssertionError


def outcomes(house: Any) -> Iterator[tuple[Judge, Conversation, Outcome]]:
    """What a house makes of each row alone."""
    for judge, tokenizer, template in checkpoints():
        renderer = house(tokenizer, template, empty_reasoning="close")
        for row in ROWS:
            try:
                (outcome,) = renderer.prove([row])
            except AssertionError as failure:
                outcome = failure
            yield judge, row, outcome


def look_of(outcome: Outcome) -> object:
    if isinstance(outcome, Proven):
        return [(example.ids.tolist(), example.weights.tolist(), example.turns) for example in outcome.examples]
    return outcome.reason if isinstance(outcome, Drop) else repr(outcome)


@cache
def right() -> tuple[tuple[Judge, Conversation, Outcome], ...]:
    """What the renderer as it is makes of the battery."""
    return tuple(outcomes(tutelage.render.Renderer))


def caught(house: Any) -> collections.Counter[str]:
    """How often each check sees something, "judge" checks by their own names."""
    seen: collections.Counter[str] = collections.Counter()
    for (judge, row, outcome), (_, _, before) in zip(outcomes(house), right(), strict=True):
        if look_of(outcome) == look_of(before):
            continue
        if isinstance(outcome, AssertionError):
            seen["gate"] += 1
            continue
        if isinstance(outcome, Drop):
            if isinstance(before, Proven):
                seen[f"witness: {outcome.reason}"] += 1
            continue
        try:
            judge.judge(row, outcome)
        except Wrong as finding:
            seen[f"judge: {finding.check}"] += 1
    return seen


def test_the_renderer_as_it_is_passes_the_battery() -> None:
    proven = 0
    for judge, row, outcome in right():
        assert not isinstance(outcome, AssertionError), (judge, row)
        judge.judge(row, outcome)
        proven += isinstance(outcome, Proven)
    assert proven >= 200, f"{proven} of {len(right())}: a battery of drops sees no mutant"


def test_a_house_rebuilt_from_unchanged_source_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert not caught(house_of(tmp_path, None))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.title)
def test_a_mutant_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_mutant: Callable[[str, str], None], mutant: Mutant
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    seen = caught(house_of(tmp_path, mutant))
    record_mutant(mutant.title, ", ".join(f"{check} {count}" for check, count in seen.most_common()) or "not caught")
    assert seen, f"{mutant.title}: nothing saw it"
    assert mutant.seen_by == "any" or any(check.startswith(mutant.seen_by) for check in seen), dict(seen)


@pytest.fixture(scope="module")
def record_mutant() -> Iterator[Callable[[str, str], None]]:
    """Collects who caught what, and writes it as a table at the end (shown with `pytest -s`)."""
    lines: list[tuple[str, str]] = []
    yield lambda title, by: lines.append((title, by))
    width = max((len(title) for title, _ in lines), default=0)
    sys.stdout.write("\n" + "".join(f"{title:{width}}  {by}\n" for title, by in lines))
