"""What a checkpoint's chat template and tokenizer do to training: each finding a sentence with its evidence.

Nothing is looked up: the template is probed by rendering (`template_probe.py`, `tool_findings.py`), the tokenizer by
encoding what the template wrote (`tokenizer_findings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from tutelage.audit.template_probe import Behavior, Probe, assistant, probe_template, user
from tutelage.audit.tokenizer_findings import token_findings
from tutelage.audit.tool_findings import probe_tools, tool_findings
from tutelage.render.chat_template.template import ChatTemplate
from tutelage.render.tokenizer import NAMED_TOKENS, Tokenizer
from tutelage.types import Finding

EXCERPT_CHARACTERS = 200
_SEVERITIES = ("error", "warning", "info")
_GLOBALS = frozenset({"raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum", "cycler", "joiner"})
_MARKER = re.compile(r"\{%-?\s*generation\b")
_WRITTEN_DAY = re.compile(r"(?i)(?:today|current)[^\n]{0,20}\bdate\b[^\n]{0,6}\d[^\n]*")


def checkpoint_findings(
    template: ChatTemplate, tokenizer: Tokenizer, *, missing_stop: str = "append", text_markers: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Everything worth saying before training with this template and tokenizer, errors first.

    Args:
        template: the template of the run.
        tokenizer: the tokenizer of the run.
        missing_stop: what the run does where the template ends no reply (`render.missing_stop`).
        text_markers: what the template writes as ordinary text by design, though it looks like control tokens.
    """
    behavior = probe_template(template)
    findings = [*_refusals(behavior, template), *_markers(template)]
    if behavior.content != "neither":
        probe = Probe(template, behavior.content)
        for section in (_system, _default_prompt, _white_space, _prompt, _reasoning, _history, _order):
            findings += section(behavior)
        findings += _clock(behavior, template)
        findings += _arguments(probe)
        findings += tool_findings(probe_tools(probe))
        findings += token_findings(template, tokenizer, behavior, missing_stop=missing_stop, text_markers=text_markers)
    return tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity)))


def excerpt(text: str, length: int = EXCERPT_CHARACTERS) -> str:
    """`text` as evidence: on one line, quoted, cut where it is long."""
    return repr(text if len(text) <= length else text[:length] + " ...")


def _refusals(behavior: Behavior, template: ChatTemplate) -> Iterator[Finding]:
    if behavior.content == "neither":
        needs_tools = probe_tools(Probe(template)).needs_tools
        yield Finding(
            "plain_chat_refused",
            "error",
            "This template accepts no chat without tools, so rows without tools will be dropped."
            if needs_tools
            else "This template does not write a user's words, so no row can be proven with it.",
            f"one user turn gives: {behavior.refusal}" if behavior.refusal else "one user turn leaves its words out",
            "name the template that the model is served with: --template",
        )
    elif behavior.reply_refusal is not None:
        yield Finding(
            "reply_refused",
            "error",
            "This template refuses a user turn with its reply, so no row can be proven with it.",
            f"it says: {behavior.reply_refusal}",
            "name the template that the model is served with: --template",
        )
    elif behavior.reply_tail is None:
        yield Finding(
            "reply_not_written",
            "error",
            "This template leaves out the words of the reply, so no row can be proven with it.",
            "a user turn and its reply come out without the reply",
            "name the template that the model is served with: --template",
        )
    if behavior.content == "parts":
        yield Finding(
            "content_as_parts",
            "info",
            "This template writes content only when it comes as a list of parts of text; rows are handed to it so.",
            "content given as text does not come out",
        )


def _system(behavior: Behavior) -> Iterator[Finding]:
    if behavior.system == "kept":
        evidence = "it stands before the mark that opens the user's turn"
        yield Finding("system_kept", "info", "A system turn is written as a turn of its own.", evidence)
    elif behavior.system == "merged":
        yield Finding(
            "system_merged",
            "info",
            "A system turn is written into the user's turn; it is context either way, and never trained.",
            "no user header stands between the system text and the user's words",
        )
    elif behavior.system == "refused":
        yield Finding(
            "system_refused",
            "warning",
            "This template refuses system turns: rows that have one will be dropped.",
            "a system turn and a user turn end in a refusal; the user turn alone does not",
            "put the instruction into the first user turn of the data",
        )
    elif behavior.system == "dropped":
        yield Finding(
            "system_dropped",
            "warning",
            "System turns are left out without a word: replies are learned without the instruction they follow.",
            "the system text is nowhere in the served prompt",
            "put the instruction into the first user turn of the data",
        )
    else:
        yield Finding(
            "system_dropped_after_reply",
            "warning",
            "The system turn is left out as soon as the last turn is a reply, so the finished conversation does not "
            "show what was served; each reply is built on its served prompt, which has it.",
            "the system text is in the rendering that ends with the user, not in the one that ends with the reply",
        )
    if behavior.system_copies > 1:
        yield Finding(
            "system_repeated",
            "info",
            f"The system text is written {behavior.system_copies} times; it is context each time, and served so.",
            "a system turn and a user turn were rendered",
        )
    if behavior.system_moves:
        yield Finding(
            "system_moves",
            "warning",
            "The system text stands before the last user turn and moves with it: each reply of a conversation has "
            "another prompt, so each needs its own sequence and tokens grow with the square of the turns.",
            "with two user turns it stands after the first",
            'render.turns = "last" trains one reply of each row',
        )
    if behavior.system not in ("refused", "dropped") and behavior.late_system != "kept":
        word = "refused" if behavior.late_system == "refused" else "left out without a word"
        yield Finding(
            f"late_system_{behavior.late_system}",
            "info",
            f"A system turn between other turns is {word}"
            + (", and its row dropped." if word == "refused" else ": what follows is learned without it."),
            "a system turn before the second user turn was rendered",
        )


def _default_prompt(behavior: Behavior) -> Iterator[Finding]:
    if behavior.default_system is None:
        return
    condition = "as well as a row's own system turn" if behavior.default_stays else "when a row has no system turn"
    yield Finding(
        "default_system",
        "info",
        f"This template writes a system prompt of its own {condition}: replies are learned under it, and it is served.",
        excerpt(behavior.default_system),
        None
        if behavior.default_stays
        else "give rows their own system turn if they should not be learned under this one",
    )


def _clock(behavior: Behavior, template: ChatTemplate) -> Iterator[Finding]:
    if behavior.dated is not None:
        yield Finding(
            "date_in_prompt",
            "warning",
            f"The prompt holds today's date. All rows are trained as of {template.date.isoformat()} (render.date), "
            "while a server writes the day it is asked.",
            excerpt(behavior.dated),
            "set render.date to a day like those it will be served on, or give rows a system turn if that removes it",
        )
        return
    if template.uses_date:
        yield Finding(
            "date_sometimes",
            "info",
            "The template asks for today's date, though plain chats do not show it; where it does write one, rows are "
            f"trained as of {template.date.isoformat()} (render.date).",
            "strftime_now is in the template's text",
        )
    written = _WRITTEN_DAY.search(behavior.default_system or "")
    if written is not None:
        yield Finding(
            "date_written",
            "info",
            "The template holds a day as fixed text, whatever the clock says; it is trained and served as it is.",
            excerpt(written.group()),
        )


def _arguments(probe: Probe) -> Iterator[Finding]:
    """Arguments that change what is served, found by giving them."""
    template = probe.template
    names = sorted(template.variables - set(NAMED_TOKENS) - template.arguments.keys() - _GLOBALS)
    plain = _served_and_finished(probe, {})
    moving = [
        f"{name} = {str(value).lower()}"
        for name in names
        for value in (True, False)
        if (texts := _served_and_finished(probe, {name: value})) != plain and None not in texts
    ]
    if moving:
        yield Finding(
            "template_arguments",
            "info",
            "Arguments of the template change what is served: train with those that the server will be given.",
            f"the text changes with {', '.join(moving)}",
            "render.template_arguments, or the rows' own",
        )


def _served_and_finished(probe: Probe, arguments: dict[str, Any]) -> tuple[str | None, str | None]:
    return (
        probe.text([user()], prompt=True, arguments=arguments),
        probe.text([user(), assistant()], prompt=False, arguments=arguments),
    )


def _white_space(behavior: Behavior) -> Iterator[Finding]:
    for key, who, sides in (
        ("trims_user", "a user's words", behavior.trims_user),
        ("trims_assistant", "a reply", behavior.trims_assistant),
    ):
        if sides:
            where = {"both": "around", "left": "before", "right": "after"}[sides]
            learned = "; a reply is learned as it is served, without it" if who == "a reply" else ""
            yield Finding(
                key, "info", f"White space {where} {who} is removed{learned}.", "padded words come out without padding"
            )


def _prompt(behavior: Behavior) -> Iterator[Finding]:
    if behavior.ignores_generation_prompt:
        yield Finding(
            "ignores_generation_prompt",
            "info",
            "Asking for a generation prompt changes nothing: whatever the template writes between the end of that "
            "prompt and the reply is the model's to emit, and is trained.",
            f"with and without it the prompt ends in {excerpt(behavior.prompt_tail)}; "
            f"then comes {excerpt(behavior.reply_lead)}",
        )
    if behavior.rewrites_without_prompt:
        yield Finding(
            "ends_without_prompt",
            "info",
            "Without a generation prompt the template ends the conversation, whoever spoke last; a served prompt does "
            "not have that end, so it is not context of any reply.",
            "the rendering without a generation prompt is not the beginning of the one with it",
        )


def _reasoning(behavior: Behavior) -> Iterator[Finding]:
    if behavior.opens_reasoning is not None and not behavior.closes_reasoning:
        yield Finding(
            "prompt_opens_reasoning",
            "warning",
            "The served prompt opens a block of reasoning, so every reply must begin inside it; for rows without "
            "reasoning, render.empty_reasoning decides: dropped, or trained to close the block at once.",
            f"the prompt ends in {excerpt(behavior.prompt_tail)}",
            'data with reasoning, or render.empty_reasoning = "close", or template arguments that turn it off',
        )
    elif behavior.opens_reasoning is not None:
        yield Finding(
            "prompt_closes_reasoning",
            "info",
            "The served prompt opens and closes an empty block of reasoning: replies are learned without reasoning, "
            "unless a template argument turns it on.",
            f"the prompt ends in {excerpt(behavior.prompt_tail)}",
        )
    if behavior.reasoning_field == "dropped" and behavior.inline_reasoning in ("dropped", "refused"):
        yield Finding(
            "reasoning_dropped",
            "warning",
            "Reasoning is left out even of the last reply: rows with reasoning will be dropped, as what the model "
            "would have to emit is not written.",
            "neither a reasoning field nor a <think> block in the content comes out",
        )
    elif behavior.reasoning_field == "dropped":
        yield Finding(
            "no_reasoning_field",
            "info",
            "The template does not read reasoning from a field of its own; it writes it where the content holds it.",
            "reasoning in a field does not come out",
        )
    if "dropped_from_history" in (behavior.reasoning_field, behavior.inline_reasoning):
        yield Finding(
            "reasoning_dropped_from_history",
            "warning",
            "Reasoning of earlier replies is left out once another turn follows: a conversation of several replies "
            "with reasoning needs a sequence for each, and tokens grow with the square of the turns.",
            "reasoning comes out in the last reply and not in an earlier one",
            'render.turns = "last" trains one reply of each row',
        )


def _history(behavior: Behavior) -> Iterator[Finding]:
    if behavior.prompt_stays is False and behavior.reply_tail is not None:
        yield Finding(
            "prompt_rewritten",
            "warning",
            "The finished turn does not begin with the prompt it is served on, so replies are built from that prompt "
            "and the turn's own words where that is unambiguous, and the row is dropped where it is not.",
            f"the served prompt ends in {excerpt(behavior.prompt_tail)}; the finished turn reads otherwise",
        )
    if behavior.history_stays is False:
        yield Finding(
            "history_rewritten",
            "warning",
            "A reply reads otherwise once another turn follows: each reply of a conversation needs its own sequence, "
            "and tokens grow with the square of the turns.",
            "the first reply and its end are not the same in a longer conversation",
            'render.turns = "last" trains one reply of each row',
        )


def _order(behavior: Behavior) -> Iterator[Finding]:
    cases = (
        ("two_users", "two user turns in a row", behavior.two_users),
        ("assistant_first", "a reply before any user turn", behavior.assistant_first),
        ("two_assistants", "two replies in a row", behavior.two_assistants),
    )
    for word, sentence in (
        ("refused", "The template refuses {}; such rows will be dropped."),
        ("dropped", "The template leaves words out without saying so, given {}."),
    ):
        affected = [(key, name) for key, name, outcome in cases if outcome == word]
        if affected:
            yield Finding(
                f"turn_order_{word}",
                "info" if word == "refused" else "warning",
                sentence.format(", ".join(name for _, name in affected)),
                f"probes: {', '.join(key for key, _ in affected)}",
            )


def _markers(template: ChatTemplate) -> Iterator[Finding]:
    if _MARKER.search(template.source):
        yield Finding(
            "generation_markers",
            "info",
            "The template marks the reply with {% generation %}. Such marks often include too much or too little; they "
            "are ignored here, as what is trained comes from the proof.",
            "the mark is in the template's text",
        )
