"""One template, all conversations and vocabularies: what tutelage makes of each pair, and what the oracle says."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from benchmarks.masks.acceptance import accepts
from benchmarks.masks.checkpoints import (
    BOS,
    EOS,
    BaseTokenizer,
    Checkpoint,
    control_tokens_in,
    literals_of,
    write_checkpoint,
)
from benchmarks.masks.escaped import judge_escaped
from benchmarks.masks.oracle import Facts
from benchmarks.masks.rewritten import judge_rewritten, reasons
from benchmarks.masks.served import Refusal, Server, Way, as_served, render
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.errors import TutelageError
from tutelage.ledger import Ledger
from tutelage.render import Renderer, examples
from tutelage.types import Change, Conversation, Drop, Example

FAULTS = (AssertionError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What would be a crash of tutelage on a row."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The outcome for a template, a vocabulary, a setting and a conversation.

    Attributes:
        verdict: "proven", "wrong", "dropped".
        acceptance: "accepted", "control token", "no reasoning" or "not accepted".
        why_not: what keeps the template from accepting it.
        renders: the whole conversation renders without an error.
        reason: tutelage's reason for a drop, or the promise that the oracle found broken.
        detail: in words.
        way: how the oracle had to write the messages.
        parts: number of Examples; `tokens` and `trained` of all of them.
        ids_sha256: of their ids and weights.
    """

    template: str
    tokenizer: str
    setting: str
    case: str
    verdict: str
    acceptance: str
    why_not: str
    renders: bool
    reason: str = ""
    detail: str = ""
    way: str = ""
    parts: int = 0
    tokens: int = 0
    trained: int = 0
    ids_sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a line of the results file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation as tutelage.formats read it, and the name of its row."""

    name: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Workload:
    """One template's share.

    Settings differ from the first in three policies alone: `empty_reasoning`, `closed_reasoning` (asked of rows with
    reasoning) and `control_tokens` (asked of rows that spell one).
    """

    template: Path
    cases: tuple[Case, ...]
    tokenizers: tuple[BaseTokenizer, ...]
    settings: tuple[tuple[str, RenderSettings], ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What tutelage trains for one pair, for a comparison with other tools.

    `messages` and `tools` are written in the oracle's way; each of `turns` has the message's index, the ids of its
    served prompt, and the ids of its reply. `verdict` and `acceptance` are the pair's.
    """

    template: str
    case: str
    verdict: str
    acceptance: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    turns: list[tuple[int, list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class TemplateResult:
    """All pairs of one template; what was kept of the first vocabulary in the first setting; the tokens found."""

    template: Path
    pairs: list[Pair]
    kept: list[Kept]
    control: tuple[str, ...]
    stops: tuple[str, ...]


Outcome = tuple[Example, ...] | Drop | BaseException
"""Of one row: its Examples, why it was dropped, or how tutelage crashed."""
PROBE_USER, PROBE_REPLY = "Probing question", "Probed answer"
PROBE_TOOL = {"type": "function", "function": {"name": "probe", "description": "Probes.", "parameters": {}}}
PROBE_CALL = {"id": "probe0001", "type": "function", "function": {"name": "probe", "arguments": {"key": "value"}}}


def pairs_of(work: Workload) -> TemplateResult:
    """All pairs of one template."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    source = work.template.read_text(encoding="utf-8")
    server = Server(spelling_tokenizer(source))
    control, stops = tokens_of(source, server)
    result = TemplateResult(work.template, [], [], control, stops)
    with tempfile.TemporaryDirectory(prefix="masks-") as scratch:
        for number, base in enumerate(work.tokenizers):
            checkpoint = write_checkpoint(Path(scratch) / base.name, base, source, control=control, stops=stops)
            if number == len(source) % len(work.tokenizers):
                assert_same_ids(work.cases, checkpoint, server)
            _judge_vocabulary(work, checkpoint, server, result, base.name)
    return result


def spelling_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """Transformers' tokenizer with the template and the named tokens; its vocabulary is empty, as texts need none."""
    return PreTrainedTokenizerFast(
        tokenizer_object=FastTokenizer(WordLevel({EOS: 0}, unk_token=EOS)),
        bos_token=BOS,
        eos_token=EOS,
        chat_template=source,
    )


def tokens_of(source: str, server: Server) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Control tokens of a template, and those that end a generation, EOS among them."""
    control = control_tokens_in(literals_of(source))
    rendered, stops = probe(server.tokenizer, control)
    return (
        tuple(dict.fromkeys((*control, *control_tokens_in(rendered)))),
        tuple(dict.fromkeys((*stops, EOS))),
    )


def probe(tokenizer: PreTrainedTokenizerFast, control: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What the template renders for a question and a reply, and the tokens that end a reply there.

    A stop is the first control token after the reply, unless a generation prompt begins with it; and the last token of
    a finished turn that calls a tool, before a generation prompt that is written unasked.
    """
    asked: dict[str, Any]
    for tools, parts in product(([], [PROBE_TOOL]), (False, True)):
        asked, replied = (
            {"role": role, "content": [{"type": "text", "text": words}] if parts else words}
            for role, words in (("user", PROBE_USER), ("assistant", PROBE_REPLY))
        )
        finished = render(tokenizer, [asked, replied], tools=tools, prompt=False)
        prompt = render(tokenizer, [asked], tools=tools, prompt=True)
        bare = render(tokenizer, [asked], tools=tools, prompt=False)
        if isinstance(prompt, str) and isinstance(bare, str) and PROBE_REPLY in str(finished):
            break
    else:
        return "", ()
    assert isinstance(finished, str)
    assert isinstance(prompt, str)
    known = set(control) | set(control_tokens_in(finished)) | {EOS}
    pattern = re.compile("|".join(re.escape(one) for one in sorted(known, key=len, reverse=True)))
    opening = pattern.search(prompt[len(bare) :]) if prompt.startswith(bare) else None
    stops = []
    first = pattern.search(finished, finished.rfind(PROBE_REPLY) + len(PROBE_REPLY))
    if first and not (opening and opening.group() == first.group()):
        stops.append(first.group())
    caller = {"role": "assistant", "content": "", "tool_calls": [PROBE_CALL]}
    calling = render(tokenizer, [asked, caller], tools=tools, prompt=False)
    if isinstance(calling, str) and "probe" in calling[len(bare) :]:
        calling = _less_header(calling, bare, pattern) if prompt == bare else calling
        ends = [one for one in pattern.finditer(calling) if not calling[one.end() :].strip()]
        stops += [end.group() for end in ends if not (opening and opening.group() == end.group())]
    return finished + prompt, tuple(stops)


def _less_header(finished: str, bare: str, control: re.Pattern[str]) -> str:
    """A finished turn without the header that stands behind a bare question, too; its own end is the token before."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(finished), reversed(bare), strict=False))
    shared = "".join(one for one, _ in same)[::-1]
    tokens = list(control.finditer(shared))
    return finished if len(tokens) < 2 else finished[: len(finished) - len(shared) + tokens[0].end()]


def _judge_vocabulary(
    work: Workload, checkpoint: Checkpoint, server: Server, result: TemplateResult, name: str
) -> None:
    """Add the pairs of one vocabulary to the result."""
    facts = Facts(checkpoint.tokenizer, checkpoint.stop_ids, work.template.read_text(encoding="utf-8"))
    special = [one.content for one in checkpoint.tokenizer.get_added_tokens_decoder().values() if one.special]
    control = re.compile("|".join(re.escape(one) for one in sorted(special, key=len, reverse=True)))
    accepted = [accepts(one.conversation, server, control) for one in work.cases]
    renderer = renderer_for(checkpoint.folder, work.settings[0][1])  # once a folder: reading a vocabulary is slow
    for setting, values in work.settings:
        escapes, opens = values.control_tokens == "escape", values.closed_reasoning == "open"
        asked = [
            (case, acceptance)
            for case, acceptance in zip(work.cases, accepted, strict=True)
            if not escapes or acceptance.kind == "control token"
            if not opens or any(map(reasons, case.conversation.messages))
        ]
        renderer = replace(
            renderer,
            empty_reasoning=values.empty_reasoning,
            closed_reasoning=values.closed_reasoning,
            control_tokens=values.control_tokens,
        )
        outcomes = outcomes_of([case.conversation for case, _ in asked], renderer)
        for (case, acceptance), outcome in zip(asked, outcomes, strict=True):
            kind = acceptance.kind
            if kind == "no reasoning" and values.empty_reasoning == "close":
                kind = "accepted"
            pair = Pair(
                template=work.template.stem,
                tokenizer=name,
                setting=setting,
                case=case.name,
                verdict="dropped",
                acceptance=kind,
                why_not=acceptance.why,
                renders=acceptance.renders,
            )
            pair, way = _judged(pair, case, outcome, server, facts, escaped=control if escapes else None, opens=opens)
            result.pairs.append(pair)
            if (setting, name) == (work.settings[0][0], work.tokenizers[0].name):
                result.kept.append(_kept(pair, case, outcome, way or acceptance.way or Way()))


def _kept(pair: Pair, case: Case, outcome: Outcome, way: Way) -> Kept:
    examples = outcome if isinstance(outcome, tuple) else ()
    turns = [
        (turn.message, example.ids[: turn.prompt_end].tolist(), example.ids[turn.prompt_end : turn.reply_end].tolist())
        for example in examples
        for turn in example.turns
    ]
    messages = [as_served(message, way) for message in case.conversation.messages]
    tools = [dict(tool) for tool in case.conversation.tools]
    return Kept(pair.template, case.name, pair.verdict, pair.acceptance, messages, tools, turns)


def _judged(
    pair: Pair,
    case: Case,
    outcome: Outcome,
    server: Server,
    facts: Facts,
    *,
    escaped: re.Pattern[str] | None,
    opens: bool,
) -> tuple[Pair, Way | None]:
    """The pair with its verdict, and the way the oracle had to write the messages; `escaped` finds control tokens."""
    if isinstance(outcome, Drop):
        return replace(pair, reason=outcome.reason, detail=outcome.detail), None
    if isinstance(outcome, BaseException):
        return replace(pair, verdict="wrong", reason="crash", detail=f"{type(outcome).__name__}: {outcome}"), None
    if escaped is not None:
        opinion = judge_escaped(case.conversation, outcome, server, facts, escaped)
    else:
        opinion = judge_rewritten(case.conversation, outcome, server, facts, opens=opens)
    made = replace(
        pair,
        verdict="proven",
        way=str(opinion.way or ""),
        parts=len(outcome),
        tokens=sum(len(one.ids) for one in outcome),
        trained=sum(one.trained_tokens for one in outcome),
        ids_sha256=hash_of(outcome),
    )
    if not opinion.is_right:
        detail = "; ".join(f"[{finding.promise}] {finding.detail}" for finding in opinion.findings)
        made = replace(made, verdict="wrong", reason=opinion.findings[0].promise, detail=detail)
    elif pair.acceptance == "control token" and escaped is None:
        made = replace(made, verdict="wrong", reason="control token", detail="text spells a control token")
    return made, opinion.way


def hash_of(examples: Sequence[Example]) -> str:
    """Hash of the ids and weights of a row's Examples, by which two runs of this benchmark are compared."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.ids.astype("<i4").tobytes() + example.weights.astype("<f4").tobytes())
    return digest.hexdigest()


def outcomes_of(conversations: Sequence[Conversation], renderer: Renderer) -> list[Outcome]:
    """What tutelage makes of each conversation, through its public doors."""

    def run(rows: Sequence[Conversation]) -> dict[int, tuple[Example, ...] | Drop]:
        made: dict[int, tuple[Example, ...] | Drop] = {}

        def hear(event: Drop | Change) -> None:
            if isinstance(event, Drop):
                made[event.address.number] = event

        for conversation, proven in examples(rows, renderer, Ledger(listener=hear)):
            made[conversation.address.number] = proven
        return made

    try:
        made = run(conversations)
        return [made[conversation.address.number] for conversation in conversations]
    except (*FAULTS, TutelageError):
        return [_alone(run, conversation) for conversation in conversations]


def _alone(run: Any, conversation: Conversation) -> Outcome:
    try:
        outcome: tuple[Example, ...] | Drop = run([conversation])[conversation.address.number]
    except (*FAULTS, TutelageError) as error:
        return error
    return outcome


def assert_same_ids(cases: Sequence[Case], checkpoint: Checkpoint, server: Server) -> None:
    """Transformers' own ids for a prompt are those of the vocabulary for its text: checked on one folder a template."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(checkpoint.folder))
    for case in cases[:3]:
        messages = [{"role": message.role, "content": message.content} for message in case.conversation.messages[:-1]]
        text = render(server.tokenizer, messages, prompt=True)
        if isinstance(text, Refusal):
            continue
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        plain = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        assert list(ids) == plain, f"{checkpoint.folder}: transformers and tokenizers differ on {case.name}"
        return
