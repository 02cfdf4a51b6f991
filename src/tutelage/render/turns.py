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

from tutelage.render.chat_template.reasoning import (
    OpenBlock,
    before_closed,
    has_tags,
    less_empty_block,
    opened_by,
    without_empty_block,
)
from tutelage.render.chat_template.tracing import Traced
from tutelage.render.missing_stop import PROBE, own_end, require_own_stop, stop_of_next, without_end
from tutelage.render.opened_reasoning import (
    OpenWords,
    closed_in_content,
    closing_by_template,
    opened_in_words,
    plain_turn,
)
from tutelage.render.rendered_row import SeenRow
from tutelage.render.replies import RenderedTurn, Reply, with_block_remark
from tutelage.render.required_text import SHOWN_CHARACTERS, Unproven, end_of_words, no_prefix, require_words
from tutelage.render.text_spans import Place, beyond, end_of_prompt, has_content, place_of, require_own
from tutelage.render.value_notation import prints_parts, require_parts_read, require_written
from tutelage.types import Change, Message

SHAPES_KEPT = 64


@dataclass(frozen=True)
class TurnWriter:
    """Writes the trained turns of rows for one template.

    Attributes:
        stop: finds a stop token in text.
        stop_words: the stop tokens, for people.
        missing_stop: what to do where the template writes no stop token.
        empty_reasoning: what to do where the prompt opens a block of reasoning and the turn has none.
        control: finds a control token in text; None where there are none.
    """

    stop: re.Pattern[str]
    stop_words: str
    missing_stop: Literal["append", "drop"]
    empty_reasoning: Literal["drop", "close"]
    control: re.Pattern[str] | None = None
    _shapes: dict[tuple[str, str, str], None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def turn(self, row: SeenRow, index: int, weight: float) -> RenderedTurn:
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
            block = opened_by(prompt)
            opening = "" if block is None else block.tag + block.gap
            known = self._known(message, opening, finished[len(prompt) :])
            reply = known or self._behind(row, index, block, prompt, finished)
        else:
            reply = self._less_trailer(row, index, self._without_prefix(row, index, prompt, finished))
        reply = with_block_remark(row, index, reply)
        found = self.stop.search(reply.after)
        if found is not None:
            require_own_stop(row, index, reply.after, found, self.control)
            text = reply.body + reply.after[: found.end()]
            return RenderedTurn(index, weight, prompt, text, stop_written=True, remarks=reply.remarks)
        body = without_end(row, index, reply.body, reply.after)
        if (stop := stop_of_next(row, index, prompt + body, self.stop)) is not None:
            detail = f"message {index}: the template ends the reply with the next turn's {stop!r}, a stop token"
            remark = Change(row.conversation.address, "stop_of_next_turn", detail)
            return RenderedTurn(index, weight, prompt, body + stop, stop_written=True, remarks=(*reply.remarks, remark))
        if self.missing_stop == "drop":
            raise Unproven(
                "no_stop_token",
                f"message {index}: the template writes no stop token ({self.stop_words}) after the reply; "
                f"it writes {(reply.body + reply.after)[-SHOWN_CHARACTERS:]!r}{own_end(reply.after, self.control)}",
            )
        remark = Change(
            row.conversation.address,
            "stop_appended",
            f"message {index}: the template writes {reply.after[:SHOWN_CHARACTERS]!r} after the reply and no stop token"
            f" ({self.stop_words}); one is appended{own_end(reply.after, self.control)}",
        )
        return RenderedTurn(index, weight, prompt, body, stop_written=False, remarks=(*reply.remarks, remark))

    def _less_trailer(self, row: SeenRow, index: int, reply: Reply) -> Reply:
        """The reply without what the template writes behind every conversation, a turn of its own say.

        A stop token that stands in there is not the reply's: such a reply ends as a turn of plain words does.
        """
        found = self.stop.search(reply.after)
        if found is None or self.control is None or not self.control.search(reply.after[: found.start()]):
            return reply
        plain = plain_turn(row, index)
        end = None if plain is None else self.stop.search(plain.after)
        trailer = "" if plain is None or end is None else plain.after[end.end() :]
        opening, closing = self.control.search(trailer), self.stop.search(trailer)
        if plain is None or end is None or opening is None or closing is None or closing.start() <= opening.start():
            return reply  # more ends of a turn, no turn of its own
        standing = row.render(index, generation_prompt=False).endswith(trailer)
        if not (standing and reply.after.endswith(trailer)):
            return reply
        after = reply.after[: len(reply.after) - len(trailer)]
        calls = replace(row.conversation.messages[index], content=None, reasoning=None)
        require_words(index, calls, reply.body + after)
        if self.missing_stop == "drop" or self.stop.search(after):
            return replace(reply, after=after)
        detail = f"message {index}: the template writes no stop token after the calls; {end.group()!r} ends them"
        remark = Change(row.conversation.address, "stop_appended", f"{detail}, as it ends a turn of plain words")
        after = after.rstrip() + plain.after[: end.end()]
        return replace(reply, after=after, remarks=(*reply.remarks, remark))

    def _known(self, message: Message, opening: str, tail: str) -> Reply | None:
        """The reading of a turn of plain words that looks like one whose every character was traced before."""
        content = message.content
        if not content or message.reasoning or message.tool_calls:
            return None
        for opened, lead, after in self._shapes:
            if opened == opening and tail.startswith(lead) and tail.endswith(after, len(lead)):
                words = tail[len(lead) : len(tail) - len(after)]
                if words == content or words in (content.strip(), content.rstrip(), content.lstrip()):
                    return Reply(lead + words, after)
        return None

    def _behind(self, row: SeenRow, index: int, block: OpenBlock | None, prompt: str, finished: str) -> Reply:
        """The reading of a turn whose finished text begins with its prompt.

        Where the template writes it inside the block that the prompt opens, its content closes the block first.
        """
        try:
            return self._followed(row, index, block, finished, start=len(prompt))
        except Unproven as finding:
            if block is None or finding.reason not in ("no_reasoning", "reasoning_not_in_reply"):
                raise
            reply = self._closed_by_content(row, index, block, prompt)
            if reply is None:
                raise
            return reply

    def _closed_by_content(self, row: SeenRow, index: int, block: OpenBlock, prompt: str) -> Reply | None:
        """The reply as the template writes it where reasoning and closing tag are handed over in the content."""
        messages = row.conversation.messages
        closing = closing_by_template(row, index, block)
        message = closed_in_content(messages[index], block, closing)
        if message is None:
            return None
        remarks = self._unreasoned(row, index, block, prompt, block.closing)
        changed = replace(row.conversation, messages=(*messages[:index], message, *messages[index + 1 :]))
        other = SeenRow(changed, row.template, row.form)
        try:
            finished = other.render(index + 1, generation_prompt=False)
            if not finished.startswith(prompt):
                return None
            reply = self._followed(other, index, block, finished, start=len(prompt))
        except Unproven:
            return None
        # A template that closes the block by itself would close it before the reasoning.
        closed_once = reply.body.count(block.closing) == (message.content or "").count(block.closing)
        return replace(reply, remarks=remarks) if closed_once else None

    def _followed(self, row: SeenRow, index: int, block: OpenBlock | None, finished: str, *, start: int) -> Reply:
        """The reading of a turn by the origin of each character; the prompt is `finished[:start]`."""
        message = row.conversation.messages[index]
        traced = row.trace(index + 1, generation_prompt=False)
        assert traced.text == finished, f"{row.conversation.address}: tracing changed the rendering"
        place = place_of(traced, index, start=start)
        if place is None:
            tail = finished[start:]
            require_words(index, message, tail)
            end = end_of_words(message, tail)
            whole = self._through_stop(tail, end)
            require_own(traced, index, start, start + len(whole))
            require_written(index, row.messages[index], message, traced, start, start + len(whole))
            return Reply(tail[:end], tail[end:])
        body = finished[start : place.last]
        whole = self._through_stop(finished[start:], place.last - start)
        opening = "" if block is None else block.tag  # what the prompt has opened, the reply need not open again
        require_words(index, message, opening + whole)
        require_own(traced, index, start, start + len(whole))
        require_written(index, row.messages[index], message, traced, start, start + len(whole))
        if message.tool_calls and (message.content or "").strip() and not has_content(traced, index, start, place.last):
            raise Unproven("content_not_in_reply", f"message {index}: the template writes the calls without the words")
        if block is not None and (block.closing not in whole or whole.lstrip().startswith(block.tag)):
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt opens {block.tag!r}, and the template writes this turn inside it: "
                f"{whole[:SHOWN_CHARACTERS]!r}",
            )
        plain = message.content and not message.reasoning and not message.tool_calls
        # Behind an opened block what comes first depends on the words: only a lead that closes it is a shape.
        lasting = block is None or block.closing in finished[start : place.first]
        if plain and lasting and len(self._shapes) < SHAPES_KEPT:
            opened = "" if block is None else block.tag + block.gap
            self._shapes[opened, finished[start : place.first], finished[place.last :]] = None
        return Reply(body, finished[place.last :])

    def _without_prefix(self, row: SeenRow, index: int, prompt: str, finished: str) -> Reply:
        try:
            return self._rebuilt(row, index, prompt, finished)
        except Unproven as finding:
            if finding.reason != "prompt_not_a_prefix":
                raise
            reply = self._as_elsewhere(row, index, prompt)
            place = place_of(row.trace(index + 1, generation_prompt=False), index)
            # Here, too, the template must write these very words.
            if reply is None or place is None or finished[place.first : place.last].strip() not in reply.body:
                raise
            return reply

    def _rebuilt(self, row: SeenRow, index: int, prompt: str, finished: str) -> Reply:
        """The reading of a turn whose finished text does not begin with its served prompt."""
        message = row.conversation.messages[index]
        served = row.trace(index, generation_prompt=True)
        traced = row.trace(index + 1, generation_prompt=False)
        assert traced.text == finished, f"{row.conversation.address}: tracing changed the rendering"
        given, before = end_of_prompt(served)
        place = place_of(traced, index)
        if place is None:
            require_words(index, message, "")
            raise no_prefix(index, prompt, finished)
        if before != place.neighbour:
            raise no_prefix(index, prompt, finished)
        words, after = finished[place.first : place.last], finished[place.last :]
        whole = self._through_stop(finished[place.first :], len(words))
        require_own(traced, index, place.first, place.first + len(whole))
        require_written(index, row.messages[index], message, traced, place.first, place.first + len(whole))
        block = opened_by(prompt)
        lead = beyond(given, place.written)
        if lead is not None:
            remarks = self._unreasoned(row, index, block, given, lead) if block is not None else ()
            opening = block.tag if block is not None else ""
            require_words(index, message, opening + lead + whole)
            return Reply(lead + words, after, remarks)
        if block is not None and block.tag in given:
            return self._reasoned(row, index, block, given, traced, place)
        opened = opened_in_words(row, index, given, place.written)
        worded = None if opened is None else self._worded(row, index, opened, traced, place)
        if worded is None and message.tool_calls:
            worded = self._called(row, index, given, traced, place)
        if worded is not None:
            return worded
        head = before_closed(given)
        lead = None if head is None else beyond(head, place.written)
        if lead is None:
            raise no_prefix(index, prompt, finished)
        if (message.reasoning or "").strip() or has_tags(without_empty_block(message.content or "")):
            raise Unproven(
                "reasoning_not_in_reply",
                f"message {index}: the served prompt ends {given[-40:]!r}, which closes the block of reasoning",
            )
        require_words(index, message, whole)
        return Reply(less_empty_block(lead) + words, after)

    def _through_stop(self, text: str, position: int) -> str:
        """`text` up to the first stop token from `position` on.

        Names of fields and numbers have no origin of their own, and may stand behind the last word that has one.
        """
        found = self.stop.search(text, position)
        return text if found is None else text[: found.end()]

    def _reasoned(self, row: SeenRow, index: int, block: OpenBlock, given: str, traced: Traced, place: Place) -> Reply:
        """The reply to a prompt that opens a block of reasoning which the finished text does not have."""
        message, finished = row.conversation.messages[index], traced.text
        lead = beyond(given[: given.rindex(block.tag)], place.written)
        if lead is None:
            raise no_prefix(index, given, finished)
        lead = less_empty_block(lead)
        if not lead.strip():
            lead = ""  # white space between a header and words; behind a closed block there is some already
        words, after = finished[place.first : place.last], finished[place.last :]
        whole = self._through_stop(finished[place.first :], len(words))
        content = message.content or ""
        if message.reasoning and message.reasoning.strip():
            require_words(index, replace(message, reasoning=None), whole)
            closing = None if row.form.writes_reasoning else closing_by_template(row, index, block)
            thought = block.close(message.reasoning) if closing is None else message.reasoning.strip() + closing
            return Reply(thought + lead + words, after)
        if (emitted := block.continued(content)) is not None and not lead:
            said = [
                at for at, one in enumerate(traced.sources) if one.message == index and one.field.startswith("content")
            ]
            ends = [at + 1 for at in range(place.first, place.last) if int(traced.source[at]) in said]
            return Reply(emitted + finished[ends[-1] if ends else place.first : place.last], after)
        if block.closing in content:
            raise Unproven(
                "content_not_in_reply",
                f"message {index}: the prompt opens {block.tag!r} and the content closes one it does not begin with",
            )
        require_words(index, message, whole)
        closing = closing_by_template(row, index, block) or block.close("")
        return Reply(closing + lead + words, after, self._unreasoned(row, index, block, given, closing))

    def _unreasoned(self, row: SeenRow, index: int, block: OpenBlock, given: str, closing: str) -> tuple[Change, ...]:
        """The policy for a turn without reasoning behind a prompt that opens a block of it."""
        message = row.conversation.messages[index]
        if (message.reasoning or "").strip() or block.closing in (message.content or ""):
            return ()
        if self.empty_reasoning == "drop":
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt ends {given[-40:]!r} and this turn has no reasoning to follow it",
            )
        detail = f"message {index}: no reasoning; the reply begins with {closing!r}"
        return (Change(row.conversation.address, "reasoning_closed", detail),)

    def _worded(self, row: SeenRow, index: int, opened: OpenWords, traced: Traced, place: Place) -> Reply | None:
        """The reply to a prompt that opens reasoning in words, or in a tag of a name that no list has."""
        message, finished = row.conversation.messages[index], traced.text
        words, after = finished[place.first : place.last], finished[place.last :]
        whole = self._through_stop(finished[place.first :], len(words))
        if has_tags(without_empty_block(message.content or "")):
            return None  # reasoning of its own that does not stand in the block of the prompt
        if (message.reasoning or "").strip():
            first = traced.sources[int(traced.source[place.first])].field
            if first.startswith(row.form.reasoning):
                require_words(index, message, whole)
                return Reply(words, after)
            if opened.block is None:
                return None
            require_words(index, replace(message, reasoning=None), whole)
            return Reply(opened.block.close(message.reasoning or "") + opened.lead + words, after)
        if self.empty_reasoning == "drop":
            if opened.block is not None:
                return None
            raise Unproven(
                "no_reasoning",
                f"message {index}: the served prompt ends {opened.text[-40:]!r} and this turn has no reasoning to "
                "follow it",
            )
        closing = opened.closing if opened.closing is not None else opened.block.close("") if opened.block else ""
        require_words(index, message, whole)
        detail = f"message {index}: no reasoning; the reply begins with {closing!r}"
        remark = Change(row.conversation.address, "reasoning_closed", detail)
        return Reply(closing + opened.lead + words, after, (remark,))

    def _called(self, row: SeenRow, index: int, given: str, traced: Traced, place: Place) -> Reply | None:
        """The reply of a turn of calls behind a prompt that has the header of a turn of plain words at its end.

        Reasoning may be opened in words behind that header.
        """
        message, finished = row.conversation.messages[index], traced.text
        plain = plain_turn(row, index)
        if plain is None or plain.neighbour != place.neighbour or not plain.header.strip():
            return None
        if not place.written.startswith(plain.header):
            return None
        lead = place.written[len(plain.header) :]
        if not given.endswith(plain.header):
            opened = opened_in_words(row, index, given, plain.header, lead) if lead else None
            return None if opened is None else self._worded(row, index, opened, traced, place)
        require_words(index, message, lead + self._through_stop(finished[place.first :], place.last - place.first))
        return Reply(lead + finished[place.first : place.last], finished[place.last :])

    def _as_elsewhere(self, row: SeenRow, index: int, prompt: str) -> Reply | None:
        """The reply as the template writes this turn behind the same header elsewhere: to a question.

        So with templates that write a reply without its header behind another reply or a tool's result: the prompt
        that is served has the header, and what follows it is what follows it after a question.
        """
        message = row.conversation.messages[index]
        if message.tool_calls:  # templates that join turns write a later call otherwise than a first one
            return None
        asked = Message("user", PROBE)
        conversation = replace(row.conversation, messages=(asked, message))
        other = SeenRow(conversation, row.template, row.form)
        try:
            bare = other.render(1, generation_prompt=False)
            served = other.render(1, generation_prompt=True)
            header = served[len(bare) :] if served.startswith(bare) else ""
            if not header.strip() or not prompt.endswith(header):
                return None
            finished = other.render(2, generation_prompt=False)
            if finished.startswith(served):
                block = opened_by(served)
                return self._followed(other, 1, block, finished, start=len(served))
            return self._rebuilt(other, 1, served, finished)
        except Unproven:
            return None
