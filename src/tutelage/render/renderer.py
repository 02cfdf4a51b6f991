"""The proof: each trained token is one the model would have to emit when served, on exactly the served context.

For a trained turn i of messages m1..mn with template T and tokenizer K:
    served prompt  P_i = K(T(m1..m_{i-1}, generation prompt on))
    reply          R_i = the ids of what the model must emit then, through the first stop token
A turn is accepted only if all independent checks pass: the prompt is a prefix of the finished turn (or the turn was put
together from its own words in the one way that fits), each character of the reply comes from the turn or from the
template, the ids of prompt and reply decode to the text that was rendered, and the reply ends in a stop token. A row
any of whose trained turns is not proven goes, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tutelage.errors import TemplateError
from tutelage.render.chat_template.message_format import MessageFormat, ReasoningField, message_format_of
from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal
from tutelage.render.drafts import Draft, cut_to_limit
from tutelage.render.hidden_fields import hidden_field_changes
from tutelage.render.loss_mask import assert_proven, masked_document, masked_turns
from tutelage.render.prompt_boundary import decoded_after, reply_ids
from tutelage.render.remedies import Remedies, effective_arguments
from tutelage.render.rendered_row import RenderedRow, repeated_reasoning, with_messages
from tutelage.render.replies import RenderedTurn
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven
from tutelage.render.rewrites import rewritten
from tutelage.render.row_size import (
    FEW_TURNS,
    LIKELY_CHARACTERS,
    Size,
    is_large,
    longer_than,
    require_prompts_fit,
    size_of,
    too_deep,
    turns_within_limit,
)
from tutelage.render.sequences import ProvenTurn, decoding_difference, sequences, split_cost
from tutelage.render.served_prompt import NONE, Arguments, Tools, escaped_ids, served_row, served_text
from tutelage.render.special_tokens import Span, SpecialTokens, special_token_finding
from tutelage.render.tokenizer import Tokenizer
from tutelage.render.trained_turns import trained_messages
from tutelage.render.turns import TurnWriter
from tutelage.types import Change, Conversation, Drop, Example, Message, Prompt, Proven, TokenIds

NO_OPENING = ("template_refused", "no_prompt", "prompt_not_a_prefix")
"""Why an assistant turn that opens a conversation cannot be asked for: no server has such a prompt, or the template
writes the turn's header behind a question only."""


@dataclass(frozen=True)
class Renderer:
    """Turns conversations into proven Examples for one tokenizer and template.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        template: the template the model will be served with.
        train_on: "replies" trains what the model must emit; "all" trains every token after the first.
        turns: train every assistant turn, or the last one only.
        control_tokens: "drop" a row whose text spells a control token, "escape" it (its characters are encoded as
            ordinary text), or "keep" it as the tokenizer reads it.
        missing_stop: "append" the stop token where the template writes none, or "drop" the row.
        reasoning_field: in which field the template is handed a turn's reasoning; "auto" asks the template.
        empty_reasoning: where the served prompt opens a block of reasoning and a turn has none, "drop" the row or
            "close" the block empty.
        closed_reasoning: where the served prompt closes the block of a turn that has reasoning, "drop" the row or
            "open" the block with an argument of the template.
        most_tokens: the longest sequence that will be kept. A row that is surely longer goes before its turns are
            rendered; None renders every row, up to limits of its own (`tutelage.render.row_size`).
        too_long: what becomes of such a row: "drop", or keep the turns that begin within the limit ("cut", "split").
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    train_on: Literal["replies", "all"] = "replies"
    turns: Literal["all", "last"] = "all"
    control_tokens: Literal["drop", "escape", "keep"] = "drop"
    missing_stop: Literal["append", "drop"] = "append"
    empty_reasoning: Literal["drop", "close"] = "drop"
    closed_reasoning: Literal["drop", "open"] = "drop"
    reasoning_field: ReasoningField = "auto"
    most_tokens: int | None = None
    too_long: Literal["drop", "cut", "split"] = "drop"

    @cached_property
    def form(self) -> MessageFormat:
        """How the template wants its messages written."""
        return message_format_of(self.template, self.reasoning_field)

    @cached_property
    def _writer(self) -> TurnWriter:
        return TurnWriter(
            self.tokenizer.stop_pattern(),
            self.tokenizer.stop_tokens_text(),
            self.missing_stop,
            self.empty_reasoning,
            self._special_tokens.pattern,
        )

    @cached_property
    def _special_tokens(self) -> SpecialTokens:
        return SpecialTokens(self.tokenizer)

    def prove(self, conversations: Sequence[Conversation]) -> list[Proven | Drop]:
        """One outcome for each conversation, in order: its Examples with remarks, or why there are none.

        A drop names a way out where one was found by trying.
        """
        outcomes = self._prove_without_remedies(conversations)
        if not any(isinstance(outcome, Drop) for outcome in outcomes):
            return outcomes
        return self._remedies.named(conversations, outcomes, Renderer._prove_without_remedies)

    @cached_property
    def effective_arguments(self) -> tuple[tuple[str, bool], ...]:
        """Arguments of the template, and their values, that change what it writes."""
        return effective_arguments(self.template)

    @cached_property
    def _remedies(self) -> Remedies:
        return Remedies(self)

    def _prove_without_remedies(self, conversations: Sequence[Conversation]) -> list[Proven | Drop]:
        drafts = [self._draft_or_drop(conversation) for conversation in conversations]
        ids = self._encode_drafts([draft for draft in drafts if isinstance(draft, Draft)])
        outcomes: list[list[ProvenTurn] | Drop] = []
        for draft in drafts:
            if isinstance(draft, Drop):
                outcomes.append(draft)
                continue
            try:
                outcomes.append([*self._turns_as_ids(draft, ids)])
            except Unproven as finding:
                outcomes.append(Drop(draft.conversation.address, finding.reason, str(finding)))
        decoded = self._decoded_replies([outcome for outcome in outcomes if not isinstance(outcome, Drop)])
        return [
            outcome if isinstance(outcome, Drop) else self._proven_or_drop(draft, outcome, decoded)
            for draft, outcome in zip(drafts, outcomes, strict=True)
        ]

    def prompt(self, conversation: Conversation) -> Prompt | Drop:
        """The served prompt of the last assistant turn, and that turn's words as the reference."""
        if (deep := too_deep(conversation)) is not None:
            return deep
        try:
            last = trained_messages(conversation, self.turns)[-1]
            conversation = self.as_proven(conversation)
            text = RenderedRow(conversation, self.template, self.form).render(last, generation_prompt=True)
        except Unproven as finding:
            return Drop(conversation.address, finding.reason, str(finding))
        except TemplateError as error:
            return self._limit_drop(conversation, error)
        ids = np.asarray(self.tokenizer.encode([text])[0], dtype=np.int32)
        reply = conversation.messages[last]
        return Prompt(conversation.address, ids, text, reply.content or "", reply.tool_calls)

    def as_proven(self, conversation: Conversation) -> Conversation:
        """The row as the template is handed it: reasoning written once, and rewritten where only that is proven."""
        if next(rewritten(conversation, self), None) is not None:
            draft = self._draft_or_drop(conversation)
            if isinstance(draft, Draft):
                return draft.conversation
        repeated = repeated_reasoning(conversation, self.form)
        return with_messages(conversation, repeated) if repeated else conversation

    def serve(self, messages: Sequence[Message], tools: Tools = (), arguments: Arguments = NONE) -> TokenIds:
        """Ids [S] of the served prompt for a conversation in progress; special tokens that it spells are escaped.

        Raises:
            TemplateRefusal: the template does not accept these messages.
        """
        row = served_row(self.template, self.form, messages, tools, arguments)
        ids = None if self.control_tokens == "keep" else escaped_ids(row, self._special_tokens)
        return np.asarray(self.tokenizer.encode([served_text(row)])[0] if ids is None else ids, dtype=np.int32)

    def served_text(self, messages: Sequence[Message]) -> str:
        """What `serve` encodes."""
        return served_text(served_row(self.template, self.form, messages))

    def _draft_or_drop(self, conversation: Conversation) -> Draft | Drop:
        size = size_of(conversation)
        if (deep := too_deep(conversation, size)) is not None:
            return deep
        try:
            return self._draft(conversation, size)
        except Unproven as finding:
            drop = Drop(conversation.address, finding.reason, str(finding))
        except TemplateError as error:
            return self._limit_drop(conversation, error)
        for other, change in rewritten(conversation, self, drop.reason):
            with suppress(Unproven, TemplateError):
                draft = self._draft(other, size)
                return replace(draft, changes=(change, *draft.changes))
        return drop

    def _limit_drop(self, conversation: Conversation, error: TemplateError) -> Drop:
        """A large row that meets the limits of rendering goes; a template that meets them by itself ends the run."""
        if not (is_large(size_of(conversation), self.template.limits) and self._renders_short_rows):
            raise error
        return Drop(conversation.address, "too_long", f"rendering the row takes {error.found}; {error.expected}")

    @cached_property
    def _renders_short_rows(self) -> bool:
        try:
            self.template.render([{"role": "user", "content": "a"}], generation_prompt=True)
        except TemplateRefusal:
            return True
        except TemplateError:
            return False
        return True

    def _draft(self, conversation: Conversation, size: Size) -> Draft:
        spelled_token = None if self.control_tokens == "keep" else self._special_tokens.first_spelled(conversation)
        if spelled_token is not None and self.control_tokens == "drop":
            raise special_token_finding(spelled_token)
        if conversation.is_text:
            if self.too_long != "split":
                self._require_within_limit(conversation.messages[0].content or "")
            return Draft(conversation, (), (), ())
        repeated = repeated_reasoning(conversation, self.form)
        if repeated:
            conversation = with_messages(conversation, repeated)
        row = RenderedRow(conversation, self.template, self.form)
        trained = trained_messages(conversation, self.turns)
        rendered_turns = self._turns_in_reach(row, trained, size)
        changes = [
            Change(conversation.address, "reasoning_said_twice", f"message {index}: field and content hold the same")
            for index in repeated
        ]
        turns = []
        for index in rendered_turns:
            turn = self._turn(row, index, changes)
            if turn is not None:
                turns.append(turn)
                changes += turn.remarks
        if not turns:
            raise Unproven("nothing_to_train", changes[-1].detail)
        changes += hidden_field_changes(conversation, turns[-1].prompt, turns[-1].message)
        escaped = self._escaped_spans(row, turns, spelled_token is not None)
        return Draft(conversation, tuple(turns), escaped, tuple(changes), len(trained) - len(rendered_turns))

    def _require_within_limit(self, text: str) -> None:
        if self.most_tokens is not None and longer_than(text, self.most_tokens, self.tokenizer):
            raise Unproven(
                "too_long", f"more than {self.most_tokens} tokens; the limit pack.max_seq_length is {self.most_tokens}"
            )

    def _turns_in_reach(self, row: RenderedRow, trained: list[int], size: Size) -> list[int]:
        """The trained turns to render: all, unless the row is known to be too long by its whole text.

        Raises:
            Unproven: it is, and no turn of it is to be kept; or the template does not take it.
        """
        max_seq_length, has_few_turns = self.most_tokens, len(trained) <= FEW_TURNS
        if has_few_turns and (max_seq_length is None or size.characters <= LIKELY_CHARACTERS * max_seq_length):
            return trained
        full_text = row.render(trained[-1] + 1, generation_prompt=False)
        if max_seq_length is None or not longer_than(full_text, max_seq_length, self.tokenizer):
            require_prompts_fit(trained, full_text)
            return trained
        if self.too_long == "drop":
            self._require_within_limit(full_text)
        return turns_within_limit(row, trained, max_seq_length, self.tokenizer)

    def _turn(self, row: RenderedRow, index: int, changes: list[Change]) -> RenderedTurn | None:
        """The turn of message `index`; None for an opening turn that no server would ask for."""
        message = row.conversation.messages[index]
        try:
            return self._writer.turn(row, index, 1.0 if message.weight is None else message.weight)
        except Unproven as finding:
            has_question = any(message.role in ("user", "tool") for message in row.conversation.messages[:index])
            if has_question or finding.reason not in NO_OPENING:
                raise
            detail = f"message {index} opens the conversation, and no prompt can be served for it: {finding}"
            changes.append(Change(row.conversation.address, "opening_turn_not_trained", detail))
            return None

    def _escaped_spans(self, row: RenderedRow, turns: Sequence[RenderedTurn], spelled: bool) -> tuple[Span, ...]:
        """Where special tokens that data wrote stand in the last turn's text; each earlier text is a prefix of it."""
        if self.control_tokens == "keep" or not (spelled or self._special_tokens.may_join(row.conversation)):
            return ()
        traced = row.trace(turns[-1].message + 1, generation_prompt=False)
        spans = self._special_tokens.escaped_spans(traced, row.conversation)
        if not spans:
            return ()
        token_text = traced.text[slice(*spans[0])]
        if self.control_tokens == "drop":
            raise special_token_finding(("two texts that meet", token_text))
        if not all(traced.text.startswith(turn.prompt + turn.reply) for turn in turns):
            raise Unproven(
                "control_token_in_text",
                f"the row spells {token_text!r}, and as the template rewrites history it cannot be escaped in every "
                "turn",
            )
        return spans

    def _encode_drafts(self, drafts: Sequence[Draft]) -> dict[str, list[int]]:
        """Ids of every prompt, and of every prompt with its reply, of rows with few turns and nothing escaped."""
        texts = dict.fromkeys(
            text
            for draft in drafts
            if not draft.escaped and len(draft.turns) <= FEW_TURNS
            for turn in draft.turns
            for text in (turn.prompt, turn.prompt + turn.reply)
        )
        return dict(zip(texts, self.tokenizer.encode(list(texts)), strict=True))

    def _turns_as_ids(self, draft: Draft, ids: dict[str, list[int]]) -> Iterator[ProvenTurn]:
        for turn in draft.turns:
            full_text = turn.prompt + turn.reply
            if draft.escaped:
                prompt_ids = self._special_tokens.encode(turn.prompt, draft.escaped)
                full_ids = self._special_tokens.encode(full_text, draft.escaped)
            elif turn.prompt in ids and full_text in ids:
                prompt_ids, full_ids = ids[turn.prompt], ids[full_text]
            else:
                prompt_ids, full_ids = self.tokenizer.encode([turn.prompt, full_text])
            emitted_ids = reply_ids(self.tokenizer, prompt_ids, full_ids, turn.reply)
            if emitted_ids is None:
                raise Unproven(
                    "round_trip",
                    f"message {turn.message}: no ids behind the prompt decode to {turn.reply[:EXCERPT_CHARACTERS]!r}",
                )
            if not turn.stop_written:
                emitted_ids = [*emitted_ids, self.tokenizer.stop_id]
            stops = [emitted_ids.index(token) for token in self.tokenizer.stop_ids if token in emitted_ids]
            subject = f"message {turn.message}: the ids of the reply {turn.reply[-EXCERPT_CHARACTERS:]!r}"
            if not stops:
                raise Unproven("no_stop_token", f"{subject} hold no stop token")
            if min(stops) != len(emitted_ids) - 1:
                raise Unproven("stop_inside_reply", f"{subject} hold a stop token before their end")
            text = turn.reply if turn.stop_written else turn.reply + self.tokenizer.spelling(emitted_ids[-1])
            yield ProvenTurn(turn.message, turn.weight, prompt_ids, emitted_ids, text)

    def _decoded_replies(self, rows: Sequence[Sequence[ProvenTurn]]) -> dict[int, str]:
        """What the ids of each turn decode to behind their prompt, by the id() of the turn."""
        turns = [turn for row in rows for turn in row]
        texts = decoded_after(self.tokenizer, [(turn.prompt_ids, turn.reply_ids) for turn in turns])
        return {id(turn): text for turn, text in zip(turns, texts, strict=True)}

    def _proven_or_drop(self, draft: Draft | Drop, turns: list[ProvenTurn], decoded: dict[int, str]) -> Proven | Drop:
        """The last witness (the ids decode to what was rendered), then the Examples."""
        assert isinstance(draft, Draft)
        address = draft.conversation.address
        try:
            if draft.conversation.is_text:
                return Proven((self._document(draft.conversation),))
            changes = draft.changes
            for turn in turns:
                if decoded[id(turn)] != turn.text:
                    changes += decoding_difference(self.tokenizer, address, turn, decoded[id(turn)])
            if draft.turns_over_limit:
                turns, cut = cut_to_limit(draft, turns, self.most_tokens)
                changes += (cut,)
            examples = tuple(
                self._example(draft.conversation, part_index, ids, held_turns)
                for part_index, (ids, held_turns) in enumerate(sequences(turns))
            )
        except Unproven as finding:
            return Drop(address, finding.reason, str(finding))
        if len(examples) > 1:
            changes += (Change(address, "split", split_cost(examples, turns, draft.appended)),)
        return Proven(examples, changes)

    def _example(self, conversation: Conversation, part_index: int, ids: list[int], turns: list[ProvenTurn]) -> Example:
        trains_all_tokens = self.train_on == "all"
        example = masked_turns(conversation.address, part_index, ids, turns, trains_all_tokens=trains_all_tokens)
        self._check_example(example, trains_all_tokens=trains_all_tokens)
        return example

    def _document(self, conversation: Conversation) -> Example:
        encoder = self._special_tokens if self.control_tokens == "escape" else self.tokenizer
        ids = encoder.encode_document(conversation.messages[0].content or "")
        if not ids or ids[-1] not in self.tokenizer.stop_ids:
            ids.append(self.tokenizer.stop_id)
        if len(ids) < 2:
            raise Unproven("nothing_to_train", "the document is empty once tokenized")
        example = masked_document(conversation.address, ids)
        self._check_example(example, trains_all_tokens=True)
        return example

    def _check_example(self, example: Example, *, trains_all_tokens: bool) -> None:
        highest, size = int(example.ids.max()), self.tokenizer.vocabulary_size
        if highest >= size:
            token = self.tokenizer.decode([highest])
            detail = f"token {token!r} has id {highest}, but the model has {size} embeddings"
            raise Unproven("id_without_embedding", detail)
        stop_ids = self.tokenizer.stop_ids
        assert_proven(example, stop_ids=stop_ids, vocabulary_size=size, trains_all_tokens=trains_all_tokens)
