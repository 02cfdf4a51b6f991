"""Probes a chat template with conversations of marked words and says what it did to each. No tokenizer is needed.

Everything here is observed by rendering: no template is read or recognized, so a template nobody has met
yet is described as well as a known one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.render.chat_template.message_format import REASONING_KEYS
from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal

SYSTEM, QUESTION, SECOND_QUESTION = "xsystemx", "xaskedx", "xaskedagainx"
REPLY, SECOND_REPLY, REASONING, SECOND_REASONING = "xreplyx", "xreplyagainx", "xwhyx", "xwhyagainx"
PADDING = " \n"
OTHER_DAY = datetime.date(1987, 11, 23)
"""A day that no template names, to see whether a rendering moves with the clock."""

OPENS_REASONING = re.compile(r"<\|?(?:seed:)?(?:think|thinking|thought|reasoning|reason)\|?>|\[THINK\]", re.IGNORECASE)
CLOSES_REASONING = re.compile(
    r"</\|?(?:seed:)?(?:think|thinking|thought|reasoning|reason)\|?>|\[/THINK\]", re.IGNORECASE
)
CONTROL_LIKE = re.compile(
    r"<[|｜][^\s<>]{1,60}[|｜]>|\[\|[^\s\[\]]{1,60}\|\]|<[|/]?[A-Za-z_:]{1,40}\|?>|\[/?[A-Z_]{2,30}\]"
)
"""What chat formats write between the words of a conversation: `<|im_start|>`, `</s>`, `<start_of_turn>`, `[INST]`."""

DEFAULT_PROMPT_WORDS = 3
"""Words before the first user turn, beyond control tokens, that make a system prompt: role names have one or two."""

ContentForm = Literal["text", "parts", "neither"]
SystemTurn = Literal["kept", "merged", "refused", "dropped", "dropped_after_reply"]
Reasoning = Literal["kept", "dropped_from_history", "dropped", "refused"]
TurnOrder = Literal["kept", "dropped", "refused"]
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Behavior:
    """What a template does, as rendering shows it. None means that the probe was refused.

    Attributes:
        content: the form that it takes message content in.
        refusal: what it said to a user turn, when it takes neither form.
        reply_refusal: what it said to a user turn and a reply; None where it wrote them.
        system: what becomes of a system turn at the start.
        system_moves: with several user turns the system text stands before the last of them, not at the start.
        system_copies: how often the system text is in the served prompt.
        late_system: what becomes of a system turn between other turns.
        default_system: text that it puts before the first user turn when there is no system turn.
        default_stays: it writes that text beside a given system turn, too.
        dated: the line it writes with the day of its clock; None where the clock shows nowhere.
        trims_user: white space it removes from user content: "", "left", "right" or "both".
        trims_assistant: the same for the reply.
        prompt_tail: what it writes after the user's words to make the model reply.
        ignores_generation_prompt: asking for a generation prompt changes nothing.
        rewrites_without_prompt: without a generation prompt it writes something else after the last turn.
        opens_reasoning: the opening tag that the generation prompt ends in, or ends with closed.
        closes_reasoning: that tag is closed in the prompt already.
        reply_lead: what it writes between the served prompt and the words of the reply; the model must emit that.
        reply_tail: what it writes after the reply of a finished conversation.
        reasoning_field: what becomes of reasoning in a field of the message, whatever name it has.
        inline_reasoning: what becomes of a `<think>` block in the content.
        prompt_stays: the finished turn begins with its served prompt.
        history_stays: an earlier turn reads as it did when it was the last.
        two_users: two user turns in a row.
        assistant_first: a reply before any user turn.
        two_assistants: two replies in a row.
    """

    content: ContentForm
    refusal: str
    reply_refusal: str | None
    system: SystemTurn
    system_moves: bool
    system_copies: int
    late_system: TurnOrder
    default_system: str | None
    default_stays: bool
    dated: str | None
    trims_user: str
    trims_assistant: str
    prompt_tail: str
    ignores_generation_prompt: bool
    rewrites_without_prompt: bool
    opens_reasoning: str | None
    closes_reasoning: bool
    reply_lead: str
    reply_tail: str | None
    reasoning_field: Reasoning
    inline_reasoning: Reasoning
    prompt_stays: bool | None
    history_stays: bool | None
    two_users: TurnOrder
    assistant_first: TurnOrder
    two_assistants: TurnOrder


@dataclass(frozen=True, slots=True)
class Probe:
    """Renders conversations in the content form that the template takes; a refusal is None."""

    template: ChatTemplate
    content: ContentForm = "text"

    def text(
        self,
        messages: Messages,
        *,
        prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str | None:
        """The rendering, or None where the template refuses."""
        formatted = [self.formatted(message) for message in messages]
        try:
            return self.template.render(formatted, generation_prompt=prompt, tools=tools, arguments=arguments)
        except TemplateRefusal:
            return None

    def refusal(self, messages: Messages, *, prompt: bool) -> str:
        """What the template says as it refuses; empty where it does not."""
        try:
            self.template.render([self.formatted(message) for message in messages], generation_prompt=prompt)
        except TemplateRefusal as refusal:
            return str(refusal)
        return ""

    def formatted(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with its content in this probe's form."""
        content = message.get("content")
        if self.content == "parts" and isinstance(content, str):
            return {**message, "content": [{"type": "text", "text": content}]}
        return dict(message)

    def outcome(self, messages: Messages, *expected_texts: str, prompt: bool) -> TurnOrder:
        """Whether all `expected_texts` are in the rendering, some are missing, or there is none."""
        text = self.text(messages, prompt=prompt)
        if text is None:
            return "refused"
        return "kept" if all(expected_text in text for expected_text in expected_texts) else "dropped"


def system(content: str = SYSTEM) -> dict[str, Any]:
    """A system turn."""
    return {"role": "system", "content": content}


def user(content: str = QUESTION) -> dict[str, Any]:
    """A user turn."""
    return {"role": "user", "content": content}


def assistant(content: str = REPLY, **fields: Any) -> dict[str, Any]:
    """A reply."""
    return {"role": "assistant", "content": content, **fields}


def probe_template(template: ChatTemplate) -> Behavior:
    """Everything that probes without tools show."""
    form = content_form(template)
    probe = Probe(template, form)
    prompt_text = probe.text([user()], prompt=True)
    history_text = probe.text([user()], prompt=False)
    finished = probe.text([user(), assistant()], prompt=False)
    prompt_tail = (
        ""
        if prompt_text is None
        else prompt_text[prompt_text.rfind(QUESTION) + len(QUESTION) :]
        if QUESTION in prompt_text
        else ""
    )
    opens, closes = opened_reasoning(prompt_tail)
    kind, moves = _system(probe)
    default = None if prompt_text is None else _default_system(probe, prompt_text)
    with_system = probe.text([system(), user()], prompt=True) or ""
    prompt_stays = None if prompt_text is None or finished is None else finished.startswith(prompt_text)
    return Behavior(
        content=form,
        refusal=Probe(template).refusal([user()], prompt=True) if form == "neither" else "",
        reply_refusal=None if finished is not None else probe.refusal([user(), assistant()], prompt=False),
        system=kind,
        system_moves=moves,
        system_copies=with_system.count(SYSTEM),
        late_system=probe.outcome([user(), assistant(), system(), user(SECOND_QUESTION)], SYSTEM, prompt=True),
        default_system=default,
        default_stays=default is not None and default in with_system,
        dated=_dated(probe),
        trims_user=_trimmed(probe, [user(PADDING + QUESTION + PADDING)], QUESTION, prompt=True),
        trims_assistant=_trimmed(probe, [user(), assistant(PADDING + REPLY + PADDING)], REPLY, prompt=False),
        prompt_tail=prompt_tail,
        ignores_generation_prompt=prompt_text == history_text,
        rewrites_without_prompt=prompt_text is not None
        and history_text is not None
        and not prompt_text.startswith(history_text),
        opens_reasoning=opens,
        closes_reasoning=closes,
        reply_lead=finished[len(prompt_text) : finished.rfind(REPLY)]
        if prompt_stays and prompt_text and finished
        else "",
        reply_tail=finished[finished.rfind(REPLY) + len(REPLY) :] if finished and REPLY in finished else None,
        reasoning_field=_reasoning(
            probe, lambda reasoning, content: assistant(content, **dict.fromkeys(REASONING_KEYS, reasoning))
        ),
        inline_reasoning=_reasoning(
            probe, lambda reasoning, content: assistant(f"<think>\n{reasoning}\n</think>\n\n{content}")
        ),
        prompt_stays=prompt_stays,
        history_stays=_history_stays(probe, finished),
        two_users=probe.outcome([user(), user(SECOND_QUESTION)], QUESTION, SECOND_QUESTION, prompt=True),
        assistant_first=probe.outcome([assistant(), user()], QUESTION, REPLY, prompt=True),
        two_assistants=probe.outcome([user(), assistant(), assistant(SECOND_REPLY)], REPLY, SECOND_REPLY, prompt=False),
    )


def content_form(template: ChatTemplate) -> ContentForm:
    """The form of content in which the template writes the user's words."""
    forms: tuple[ContentForm, ContentForm] = ("text", "parts")
    for form in forms:
        if QUESTION in (Probe(template, form).text([user()], prompt=True) or ""):
            return form
    return "neither"


def opened_reasoning(prompt_tail: str) -> tuple[str | None, bool]:
    """The last tag that opens reasoning in a generation prompt, and whether it is closed after."""
    opened = list(OPENS_REASONING.finditer(prompt_tail))
    if not opened:
        return None, False
    return opened[-1].group(), CLOSES_REASONING.search(prompt_tail, opened[-1].end()) is not None


def control_like(text: str) -> list[str]:
    """What looks like a control token in `text`, once each, in order."""
    return list(dict.fromkeys(match.group() for match in CONTROL_LIKE.finditer(text)))


def _system(probe: Probe) -> tuple[SystemTurn, bool]:
    served = probe.text([system(), user()], prompt=True)
    finished = probe.text([system(), user(), assistant()], prompt=False)
    if served is None:
        return "refused", False
    if SYSTEM not in served:
        return "dropped", False
    longer = probe.text([system(), user(), assistant(), user(SECOND_QUESTION)], prompt=True) or ""
    moves = SYSTEM in longer and longer.find(SYSTEM) > longer.find(QUESTION)
    if finished is not None and SYSTEM not in finished:
        return "dropped_after_reply", moves
    header = _user_header(probe)
    between = served[served.find(SYSTEM) + len(SYSTEM) : served.rfind(QUESTION)]
    return ("kept" if header and header in between else "merged"), moves


def _user_header(probe: Probe) -> str:
    """What the template writes before any user's words: what the first two user turns have in common."""
    text = probe.text([user(), assistant(), user(SECOND_QUESTION)], prompt=True)
    if text is None or REPLY not in text or SECOND_QUESTION not in text or QUESTION not in text:
        single_turn = probe.text([user()], prompt=True) or ""
        return single_turn[: max(0, single_turn.find(QUESTION))].strip()
    first = text[: text.find(QUESTION)]
    second = text[text.find(REPLY) + len(REPLY) : text.find(SECOND_QUESTION)]
    common = _common_end(first, second)
    first_token = CONTROL_LIKE.search(common)
    return common[
        first_token.start() if first_token is not None and not common[: first_token.start()].strip().isalnum() else 0 :
    ].strip()


def _common_end(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return first[len(first) - length :]


def _default_system(probe: Probe, prompt_text: str) -> str | None:
    """Words before the first user turn that belong to no user header and to no control token."""
    preceding = prompt_text[: max(0, prompt_text.find(QUESTION))].rstrip()
    own_text = preceding.removesuffix(_user_header(probe))
    text = CONTROL_LIKE.sub(" ", own_text)
    for name in ("bos_token", "eos_token"):
        token = probe.template.arguments.get(name)
        text = text.replace(token, " ") if isinstance(token, str) and token else text
    return text.strip() if len(re.findall(r"[^\W\d_]{2,}", text)) >= DEFAULT_PROMPT_WORDS else None


def _dated(probe: Probe) -> str | None:
    template = probe.template
    other_probe = Probe(
        ChatTemplate(
            template.source,
            tools_source=template.tools_source,
            named_tokens={},
            arguments=template.arguments,
            date=OTHER_DAY,
            name=template.name,
        ),
        probe.content,
    )
    for messages in ([user()], [system(), user()]):
        text, other_text = probe.text(messages, prompt=True), other_probe.text(messages, prompt=True)
        if text is not None and other_text is not None and text != other_text:
            lines, other_lines = text.split("\n"), other_text.split("\n")
            return next(
                (line for line, other_line in zip(lines, other_lines, strict=False) if line != other_line), lines[-1]
            )
    return None


def _trimmed(probe: Probe, messages: Messages, content: str, *, prompt: bool) -> str:
    text = probe.text(messages, prompt=prompt)
    if text is None or content not in text:
        return ""
    keeps_left, keeps_right = PADDING + content in text, content + PADDING in text
    return {(True, True): "", (False, True): "left", (True, False): "right", (False, False): "both"}[
        keeps_left, keeps_right
    ]


def _reasoning(probe: Probe, reply: Any) -> Reasoning:
    """What becomes of the reasoning of the last reply, and of an earlier one."""
    last = probe.text([user(), reply(REASONING, REPLY)], prompt=False)
    if last is None:
        return "refused"
    if REASONING not in last:
        return "dropped"
    conversation_text = probe.text(
        [user(), reply(REASONING, REPLY), user(SECOND_QUESTION), reply(SECOND_REASONING, SECOND_REPLY)], prompt=False
    )
    return "dropped_from_history" if conversation_text is not None and REASONING not in conversation_text else "kept"


def _history_stays(probe: Probe, finished: str | None) -> bool | None:
    """Whether the reply, and the first mark that ends it, read the same once another turn follows."""
    longer = probe.text([user(), assistant(), user(SECOND_QUESTION)], prompt=True)
    if finished is None or longer is None or REPLY not in finished:
        return None
    end = finished.rfind(REPLY) + len(REPLY)
    mark = re.match(r"\s*\S*", finished[end:])
    first = CONTROL_LIKE.match(finished[end:].lstrip())
    ending = first.group() if first is not None else mark.group().strip() if mark is not None else ""
    return longer.startswith(finished[:end]) and longer[end:].lstrip().startswith(ending)
