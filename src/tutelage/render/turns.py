"""One trained turn as text: the served prompt, and the reply that a model must then emit.

For turn i of messages m1..mn and template T:
    prompt    T(m1..m_{i-1}, generation prompt on): what a server feeds;
    finished  T(m1..mi, generation prompt off): what the template writes once the turn is there.
Where the finished text begins with the prompt, the reply is what follows, through the first stop token. Where it does
not, the reply is put together from the turn's own words and the template's own delimiters, if only one way fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from msgspec import structs

from tutelage.render.chat_template.reasoning import (
    OpenBlock,
    has_reasoning_tags,
    open_block_at_end,
    strip_empty_block,
    text_before_closed_block,
    without_empty_block,
)
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.missing_stop import PROBE, require_own_stop, stop_hint, stop_of_next_turn, without_separator
from tutelage.render.opened_reasoning import Opener, closed_in_content, plain_turn, reasoning_opener, template_closing
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.replies import Remarks, RenderedTurn, Reply, with_block_remark
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven, prompt_mismatch, require_text, required_text_end
from tutelage.render.text_spans import (
    TextSpan,
    end_of_content,
    end_of_prompt,
    has_content,
    reply_lead,
    require_own_text,
    span_of,
)
from tutelage.render.value_notation import prints_parts, require_parts_read, require_written
from tutelage.types import Change, Message

MAX_LAYOUTS = 64


@dataclass(frozen=True)
class TurnWriter:
    """Writes the trained turns of rows for one template.

    Attributes:
        stop: finds a stop token in text.
        stop_tokens_text: the stop tokens, for people.
        missing_stop: what to do where the template writes no stop token.
        empty_reasoning: what to do where the prompt opens a block of reasoning and the turn has none.
        special_token: finds a special token in text; None where there are none.
    """

    stop: re.Pattern[str]
    stop_tokens_text: str
    missing_stop: Literal["append", "drop"]
    empty_reasoning: Literal["drop", "close"]
    special_token: re.Pattern[str] | None = None
    _layouts: dict[tuple[str, str, str], None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def turn(self, row: RenderedRow, index: int, weight: float) -> RenderedTurn:
        """The turn of message `index`.

        Raises:
            Unproven: the template refuses the messages, or no single reading of the turn is left.
        """
        message = row.conversation.messages[index]
        prompt = row.render(index, generation_prompt=True)
        if not prompt:
            raise Unproven("no_prompt", f"message {index}: the template serves an empty prompt, which predicts nothing")
        if row.form.hands_lists and prints_parts(prompt):
            require_parts_read(row.trace(index, generation_prompt=True))
        finished = row.render(index + 1, generation_prompt=False)
        if finished.startswith(prompt):
            block = open_block_at_end(prompt)
            opening = "" if block is None else block.tag + block.gap
            cached_reply = self._cached_reply(message, opening, finished[len(prompt) :])
            reply = cached_reply or self._continued(row, index, block, prompt, finished)
        else:
            reply = self._without_trailer(row, index, self._rewritten_reply(row, index, prompt, finished))
        reply = with_block_remark(row, index, reply)
        match = self.stop.search(reply.suffix)
        if match is not None:
            require_own_stop(row, index, reply.suffix, match, self.special_token)
            text = reply.body + reply.suffix[: match.end()]
            return RenderedTurn(index, weight, prompt, text, stop_written=True, remarks=reply.remarks)
        body = without_separator(row, index, reply.body, reply.suffix)
        if (stop := stop_of_next_turn(row, index, prompt + body, self.stop)) is not None:
            detail = f"message {index}: the template ends the reply with the next turn's {stop!r}, a stop token"
            remark = Change(row.conversation.address, "stop_of_next_turn", detail)
            return RenderedTurn(index, weight, prompt, body + stop, stop_written=True, remarks=(*reply.remarks, remark))
        hint = stop_hint(reply.suffix, self.special_token)
        if self.missing_stop == "drop":
            raise Unproven(
                "no_stop_token",
                f"message {index}: the template writes no stop token ({self.stop_tokens_text}) after the reply; "
                f"it writes {(reply.body + reply.suffix)[-EXCERPT_CHARACTERS:]!r}{hint}",
            )
        written = f"message {index}: the template writes {reply.suffix[:EXCERPT_CHARACTERS]!r} after the reply"
        detail = f"{written} and no stop token ({self.stop_tokens_text}); one is appended{hint}"
        remark = Change(row.conversation.address, "stop_appended", detail)
        return RenderedTurn(index, weight, prompt, body, stop_written=False, remarks=(*reply.remarks, remark))

    def _without_trailer(self, row: RenderedRow, index: int, reply: Reply) -> Reply:
        """The reply without what the template writes behind every conversation, a turn of its own say.

        A stop token that stands in there is not the reply's: such a reply ends as a turn of plain words does.
        """
        match = self.stop.search(reply.suffix)
        if match is None or self.special_token is None or not self.special_token.search(reply.suffix[: match.start()]):
            return reply
        plain = plain_turn(row, index)
        end = None if plain is None else self.stop.search(plain.suffix)
        trailer = "" if plain is None or end is None else plain.suffix[end.end() :]
        opening, closing = self.special_token.search(trailer), self.stop.search(trailer)
        if plain is None or end is None or opening is None or closing is None or closing.start() <= opening.start():
            return reply  # more ends of a turn, no turn of its own
        in_history = row.render(index, generation_prompt=False).endswith(trailer)
        if not (in_history and reply.suffix.endswith(trailer)):
            return reply
        suffix = reply.suffix[: len(reply.suffix) - len(trailer)]
        calls = structs.replace(row.conversation.messages[index], content=None, reasoning=None)
        require_text(index, calls, reply.body + suffix)
        if self.missing_stop == "drop" or self.stop.search(suffix):
            return replace(reply, suffix=suffix)
        detail = f"message {index}: the template writes no stop token after the calls; {end.group()!r} ends them"
        remark = Change(row.conversation.address, "stop_appended", f"{detail}, as it ends a turn of plain words")
        suffix = suffix.rstrip() + plain.suffix[: end.end()]
        return replace(reply, suffix=suffix, remarks=(*reply.remarks, remark))

    def _cached_reply(self, message: Message, opening: str, tail: str) -> Reply | None:
        """The reading of a turn of plain words that looks like one whose every character was traced before."""
        content = message.content
        if not content or message.reasoning or message.tool_calls:
            return None
        for opened, lead, suffix in self._layouts:
            if opened == opening and tail.startswith(lead) and tail.endswith(suffix, len(lead)):
                text = tail[len(lead) : len(tail) - len(suffix)]
                if text == content or text in (content.strip(), content.rstrip(), content.lstrip()):
                    return Reply(lead + text, suffix)
        return None

    def _continued(self, row: RenderedRow, index: int, block: OpenBlock | None, prompt: str, finished: str) -> Reply:
        """The reading of a turn whose finished text begins with its prompt.

        Where the template writes it inside the block that the prompt opens, its content closes the block first.
        """
        try:
            return self._traced(row, index, block, finished, start=len(prompt))
        except Unproven as finding:
            if block is None or finding.reason not in ("no_reasoning", "reasoning_not_in_reply"):
                raise
            reply = self._reply_closed_by_content(row, index, block, prompt)
            if reply is None:
                raise
            return reply

    def _reply_closed_by_content(self, row: RenderedRow, index: int, block: OpenBlock, prompt: str) -> Reply | None:
        """The reply as the template writes it where reasoning and closing tag are handed over in the content."""
        messages = row.conversation.messages
        closing = template_closing(row, index, block)
        message = closed_in_content(messages[index], block, closing)
        if message is None:
            return None
        remarks = self._missing_reasoning(row, index, block, prompt, block.closing)
        conversation = structs.replace(row.conversation, messages=(*messages[:index], message, *messages[index + 1 :]))
        changed_row = RenderedRow(conversation, row.template, row.form)
        try:
            finished = changed_row.render(index + 1, generation_prompt=False)
            if not finished.startswith(prompt):
                return None
            reply = self._traced(changed_row, index, block, finished, start=len(prompt))
        except Unproven:
            return None
        # A template that closes the block by itself would close it before the reasoning.
        closed_once = reply.body.count(block.closing) == (message.content or "").count(block.closing)
        return replace(reply, remarks=remarks) if closed_once else None

    def _traced(self, row: RenderedRow, index: int, block: OpenBlock | None, finished: str, *, start: int) -> Reply:
        """The reading of a turn by the origin of each character; the prompt is `finished[:start]`."""
        message = row.conversation.messages[index]
        traced = row.trace(index + 1, generation_prompt=False)
        assert traced.text == finished, f"{row.conversation.address}: tracing changed the rendering"
        span = span_of(traced, index, start=start)
        if span is None:
            tail = finished[start:]
            require_text(index, message, tail)
            end = required_text_end(message, tail)
            reply_text = self._through_stop(tail, end)
            require_own_text(traced, index, start, start + len(reply_text))
            require_written(index, row.messages[index], message, traced, start, start + len(reply_text))
            return Reply(tail[:end], tail[end:])
        body = finished[start : span.end]
        reply_text = self._through_stop(finished[start:], span.end - start)
        opening = "" if block is None else block.tag  # what the prompt has opened, the reply need not open again
        require_text(index, message, opening + reply_text)
        require_own_text(traced, index, start, start + len(reply_text))
        require_written(index, row.messages[index], message, traced, start, start + len(reply_text))
        if message.tool_calls and (message.content or "").strip() and not has_content(traced, index, start, span.end):
            raise Unproven("content_not_in_reply", f"message {index}: the template writes the calls without the words")
        if block is not None and (block.closing not in reply_text or reply_text.lstrip().startswith(block.tag)):
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt opens {block.tag!r}, and the template writes this turn inside it: "
                f"{reply_text[:EXCERPT_CHARACTERS]!r}",
            )
        is_plain = message.content and not message.reasoning and not message.tool_calls
        # Behind an opened block what comes first depends on the words: only a lead that closes it is a shape.
        is_stable = block is None or block.closing in finished[start : span.start]
        if is_plain and is_stable and len(self._layouts) < MAX_LAYOUTS:
            opening = "" if block is None else block.tag + block.gap
            self._layouts[opening, finished[start : span.start], finished[span.end :]] = None
        return Reply(body, finished[span.end :])

    def _rewritten_reply(self, row: RenderedRow, index: int, prompt: str, finished: str) -> Reply:
        try:
            return self._rebuilt_reply(row, index, prompt, finished)
        except Unproven as finding:
            if finding.reason != "prompt_not_a_prefix":
                raise
            reply = self._reply_to_question(row, index, prompt)
            span = span_of(row.trace(index + 1, generation_prompt=False), index)
            if reply is None or span is None:
                raise
            # Here, too, the template must write these very words; a later call, all that it writes for a first one.
            text, suffix = finished[: span.end], finished[span.end :]
            whole = text.endswith(reply.body) and suffix == reply.suffix
            if not (whole if row.conversation.messages[index].tool_calls else text[span.start :].strip() in reply.body):
                raise
            return reply

    def _rebuilt_reply(self, row: RenderedRow, index: int, prompt: str, finished: str) -> Reply:
        """The reading of a turn whose finished text does not begin with its served prompt."""
        message = row.conversation.messages[index]
        served = row.trace(index, generation_prompt=True)
        traced = row.trace(index + 1, generation_prompt=False)
        assert traced.text == finished, f"{row.conversation.address}: tracing changed the rendering"
        ending, neighbor = end_of_prompt(served)
        span = span_of(traced, index)
        if span is None:
            require_text(index, message, "")
        if span is None or neighbor != span.neighbor:
            raise prompt_mismatch(index, prompt, finished)
        text, suffix = finished[span.start : span.end], finished[span.end :]
        reply_text = self._through_stop(finished[span.start :], len(text))
        require_own_text(traced, index, span.start, span.start + len(reply_text))
        require_written(index, row.messages[index], message, traced, span.start, span.start + len(reply_text))
        block = open_block_at_end(prompt)
        lead = reply_lead(ending, span.prefix_text)
        if lead is not None:
            remarks = self._missing_reasoning(row, index, block, ending, lead) if block is not None else ()
            opening = block.tag if block is not None else ""
            require_text(index, message, opening + lead + reply_text)
            return Reply(lead + text, suffix, remarks)
        if block is not None and block.tag in ending:
            return self._reasoning_reply(row, index, block, ending, traced, span)
        opener = reasoning_opener(row, index, ending, span.prefix_text)
        reply = None if opener is None else self._opened(row, index, opener, traced, span)
        if reply is None and message.tool_calls:
            reply = self._tool_call(row, index, ending, traced, span)
        if reply is not None:
            return reply
        head = text_before_closed_block(ending)
        lead = None if head is None else reply_lead(head, span.prefix_text)
        if lead is None:
            raise prompt_mismatch(index, prompt, finished)
        if (message.reasoning or "").strip() or has_reasoning_tags(without_empty_block(message.content or "")):
            raise Unproven(
                "reasoning_not_in_reply",
                f"message {index}: the served prompt ends {ending[-40:]!r}, which closes the block of reasoning",
            )
        require_text(index, message, reply_text)
        return Reply(strip_empty_block(lead) + text, suffix)

    def _through_stop(self, text: str, position: int) -> str:
        """`text` up to the first stop token from `position` on.

        Names of fields and numbers have no origin of their own, and may stand behind the last word that has one.
        """
        match = self.stop.search(text, position)
        return text if match is None else text[: match.end()]

    def _reasoning_reply(
        self, row: RenderedRow, index: int, block: OpenBlock, ending: str, traced: Traced, span: TextSpan
    ) -> Reply:
        """The reply to a prompt that opens a block of reasoning which the finished text does not have."""
        message, finished = row.conversation.messages[index], traced.text
        lead = reply_lead(ending[: ending.rindex(block.tag)], span.prefix_text)
        if lead is None:
            raise prompt_mismatch(index, ending, finished)
        lead = strip_empty_block(lead)
        if not lead.strip():
            lead = ""  # white space between a header and words; behind a closed block there is some already
        text, suffix = finished[span.start : span.end], finished[span.end :]
        reply_text = self._through_stop(finished[span.start :], len(text))
        content = message.content or ""
        if message.reasoning and message.reasoning.strip():
            require_text(index, structs.replace(message, reasoning=None), reply_text)
            closing = None if row.form.writes_reasoning else template_closing(row, index, block)
            thought = block.close(message.reasoning) if closing is None else message.reasoning.strip() + closing
            return Reply(thought + lead + text, suffix)
        if (emitted := block.continuation(content)) is not None and not lead:
            end = end_of_content(traced, index, span.start, span.end)
            return Reply(emitted + finished[end : span.end], suffix)
        if block.closing in content:
            raise Unproven(
                "content_not_in_reply",
                f"message {index}: the prompt opens {block.tag!r} and the content closes one it does not begin with",
            )
        require_text(index, message, reply_text)
        closing = template_closing(row, index, block) or block.close("")
        return Reply(closing + lead + text, suffix, self._missing_reasoning(row, index, block, ending, closing))

    def _missing_reasoning(self, row: RenderedRow, index: int, block: OpenBlock, ending: str, closing: str) -> Remarks:
        """The policy for a turn without reasoning behind a prompt that opens a block of it."""
        message = row.conversation.messages[index]
        if (message.reasoning or "").strip() or block.closing in (message.content or ""):
            return ()
        if self.empty_reasoning == "drop":
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt ends {ending[-40:]!r} and this turn has no reasoning to follow it",
            )
        detail = f"message {index}: no reasoning; the reply begins with {closing!r}"
        return (Change(row.conversation.address, "reasoning_closed", detail),)

    def _opened(self, row: RenderedRow, index: int, opener: Opener, traced: Traced, span: TextSpan) -> Reply | None:
        """The reply to a prompt that opens reasoning in words, or in a tag of a name that no list has."""
        message, finished = row.conversation.messages[index], traced.text
        text, suffix = finished[span.start : span.end], finished[span.end :]
        reply_text = self._through_stop(finished[span.start :], len(text))
        if has_reasoning_tags(without_empty_block(message.content or "")):
            return None  # reasoning of its own that does not stand in the block of the prompt
        if (message.reasoning or "").strip():
            if traced.sources[int(traced.source[span.start])].field.startswith(row.form.reasoning):
                require_text(index, message, reply_text)
                return Reply(text, suffix)
            if opener.block is None:
                return None
            require_text(index, structs.replace(message, reasoning=None), reply_text)
            return Reply(opener.block.close(message.reasoning or "") + opener.lead + text, suffix)
        if self.empty_reasoning == "drop":
            if opener.block is not None:
                return None
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt ends {opener.text[-40:]!r} and this turn has no reasoning to "
                "follow it",
            )
        closing = opener.closing if opener.closing is not None else opener.block.close("") if opener.block else ""
        require_text(index, message, reply_text)
        detail = f"message {index}: no reasoning; the reply begins with {closing!r}"
        remark = Change(row.conversation.address, "reasoning_closed", detail)
        return Reply(closing + opener.lead + text, suffix, (remark,))

    def _tool_call(self, row: RenderedRow, index: int, ending: str, traced: Traced, span: TextSpan) -> Reply | None:
        """The reply of a turn of calls behind a prompt that has the header of a turn of plain words at its end.

        Reasoning may be opened in words behind that header.
        """
        message, finished = row.conversation.messages[index], traced.text
        plain = plain_turn(row, index)
        if plain is None or plain.neighbor != span.neighbor or not plain.header.strip():
            return None
        if not span.prefix_text.startswith(plain.header):
            return None
        lead = span.prefix_text[len(plain.header) :]
        if not ending.endswith(plain.header):
            opener = reasoning_opener(row, index, ending, plain.header, lead) if lead else None
            return None if opener is None else self._opened(row, index, opener, traced, span)
        require_text(index, message, lead + self._through_stop(finished[span.start :], span.end - span.start))
        return Reply(lead + finished[span.start : span.end], finished[span.end :])

    def _reply_to_question(self, row: RenderedRow, index: int, prompt: str) -> Reply | None:
        """The reply as the template writes this turn behind the same header elsewhere: to a question.

        So with templates that write a reply without its header behind another reply or a tool's result: the prompt
        that is served has the header, and what follows it is what follows it after a question.
        """
        turn_alone = (Message("user", PROBE), row.conversation.messages[index])
        probe_row = RenderedRow(structs.replace(row.conversation, messages=turn_alone), row.template, row.form)
        try:
            history = probe_row.render(1, generation_prompt=False)
            served = probe_row.render(1, generation_prompt=True)
            header = served[len(history) :] if served.startswith(history) else ""
            if not header.strip() or not prompt.endswith(header):
                return None
            finished = probe_row.render(2, generation_prompt=False)
            if finished.startswith(served):
                block = open_block_at_end(served)
                return self._traced(probe_row, 1, block, finished, start=len(served))
            return self._rebuilt_reply(probe_row, 1, served, finished)
        except Unproven:
            return None
