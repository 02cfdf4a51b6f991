"""Two sampled replies of one model to each prompt, and rows for DPO of what was preferred."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.annotate.asked import AskedPrompt
from tutelage.curate.row_json import row_json
from tutelage.errors import SaveError, cause_of, remedy
from tutelage.evaluate.pairwise.pairs import Answered, Pair, Pairing, Replies, pair_replies
from tutelage.evaluate.pairwise.results import judged_outcome
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.synthesize.generator import Request, Sampling
from tutelage.synthesize.reply_book import EndedError, ReplyBook
from tutelage.system.files import write_bytes
from tutelage.types import Address, Conversation

ROWS, REPLIES = "preferences.jsonl", "replies.jsonl"
FIRST, SECOND = "one sample", "another sample"


@dataclass(slots=True)
class Sampled:
    """The pairs, and what was sampled besides.

    Attributes:
        pairing: two different whole replies to each prompt that got two.
        unusable: reason -> replies that were sampled and not taken.
        without: prompts that did not get two in all draws.
        cannot_be_asked: prompts with tools, which a plain chat cannot say.
        ended: why not all was sampled; None where all was.
    """

    pairing: Pairing | None
    unusable: Counter[str] = field(default_factory=Counter)
    without: int = 0
    cannot_be_asked: int = 0
    ended: str | None = None


def sample_pairs(
    prompts: Sequence[AskedPrompt],
    book: ReplyBook,
    sampling: Sampling,
    *,
    identity: str,
    draws: int,
    seed: int,
    together: int = 32,
    done: Callable[[int], None] = lambda _: None,
) -> Sampled:
    """Sample until each prompt has two replies that differ, are whole and say something.

    Args:
        prompts: each is asked at least twice.
        book: the replies so far, and who is asked for others: none is paid for twice.
        sampling: how tokens are drawn.
        identity: of the model's weights and the seed: a reply is known by it, too.
        draws: at most of each prompt.
        seed: of the order in which pairs are shown.
        together: prompts that are asked about at once.
        done: called with the number of prompts that are settled since the last call.

    Raises:
        EndpointError: the endpoint does not answer; what it had answered is kept.
        SaveError: a reply could not be kept.
    """
    result = Sampled(None)
    askable = [prompt for prompt in prompts if not _has_calls(prompt)]
    result.cannot_be_asked = len(prompts) - len(askable)
    done(result.cannot_be_asked)
    one: list[Answered] = []
    two: list[Answered] = []
    for start in range(0, len(askable), together):
        chunk = askable[start : start + together]
        try:
            taken = _sample(chunk, book, sampling, identity, draws, result)
        except EndedError as error:
            result.ended = str(error)
            break
        for prompt in chunk:
            replies = taken[prompt.key]
            if len(replies) < 2:
                result.without += 1
                continue
            one.append(Answered(prompt.address, prompt.messages, replies[0]))
            two.append(Answered(prompt.address, prompt.messages, replies[1]))
        done(len(chunk))
    if one:
        result.pairing = pair_replies(Replies(FIRST, tuple(one)), Replies(SECOND, tuple(two)), seed=seed)
    return result


def _sample(
    prompts: Sequence[AskedPrompt], book: ReplyBook, sampling: Sampling, identity: str, draws: int, result: Sampled
) -> Mapping[str, list[str]]:
    """By key up to two replies of each prompt."""
    taken: dict[str, list[str]] = {prompt.key: [] for prompt in prompts}
    asked: Counter[str] = Counter()
    while waiting := [prompt for prompt in prompts if len(taken[prompt.key]) < 2 and asked[prompt.key] < draws]:
        requests, keys = [], []
        for prompt in waiting:
            missing = min(2 - len(taken[prompt.key]), draws - asked[prompt.key])
            for _ in range(missing):
                name = f"{identity}/{prompt.key}/{asked[prompt.key]}"
                requests.append(Request(name, _chat(prompt), sampling))
                keys.append(prompt.key)
                asked[prompt.key] += 1
        for key, reply in zip(keys, book.ask(requests), strict=True):
            why = _why_not(reply.text, taken[key], is_whole=reply.is_whole)
            if why is None:
                assert reply.text is not None
                taken[key].append(reply.text)
            else:
                result.unusable[why] += 1
    return taken


def _why_not(text: str | None, taken: Sequence[str], *, is_whole: bool) -> str | None:
    if text is None:
        return "no reply"
    if not text.strip():
        return "says nothing"
    if not is_whole:  # a preferred one would teach to stop in the middle
        return "cut at its limit"
    return "the same as the other" if any(text.strip() == other.strip() for other in taken) else None


def _has_calls(prompt: AskedPrompt) -> bool:
    return bool(prompt.conversation.tools) or any(
        message.role == "tool" or message.tool_calls for message in prompt.messages
    )


def _chat(prompt: AskedPrompt) -> tuple[Mapping[str, str], ...]:
    return tuple({"role": message.role, "content": message.content or ""} for message in prompt.messages)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The rows, and the pairs without one: ties, those that raters were split on, and those without a verdict."""

    rows: tuple[Mapping[str, Any], ...]
    ties: int
    split: int
    unjudged: int


def preferences_of(pairing: Pairing | None, verdicts: VerdictFile) -> Preferences:
    """What most people preferred of each pair; where no person said anything, what most judges did.

    A judge's word counts where it is the same in both orders.
    """
    people, judges = _people(verdicts), _judges(verdicts)
    rows, counts = [], Counter[str]()
    for pair in () if pairing is None else pairing.pairs:
        said = people.get(pair.key) or judges.get(pair.key) or []
        ranked = Counter(said).most_common()
        if not ranked:
            counts["unjudged"] += 1
        elif len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
            counts["split"] += 1
        elif ranked[0][0] == "tie":
            counts["tie"] += 1
        else:
            rows.append(_row(pair, ranked[0][0]))
    return Preferences(tuple(rows), counts["tie"], counts["split"], counts["unjudged"])


def _people(verdicts: VerdictFile) -> Mapping[str, list[str]]:
    said: dict[str, list[str]] = defaultdict(list)
    for person in verdicts.raters("person"):
        for (key, _), verdict in verdicts.of("person", person).items():
            if verdict.choice in ("a", "b", "tie"):
                said[key].append(verdict.choice)
    return said


def _judges(verdicts: VerdictFile) -> Mapping[str, list[str]]:
    said: dict[str, list[str]] = defaultdict(list)
    for judge in verdicts.raters("judge"):
        held = verdicts.of("judge", judge)
        for key in dict.fromkeys(pair for pair, _ in held):
            orders = [held.get((key, "a")), held.get((key, "b"))]
            choices = [order.choice for order in orders if order is not None and order.choice in ("a", "b", "tie")]
            if len(choices) == 2:
                said[key].append(judged_outcome(*choices))
    return said


def _row(pair: Pair, better: str) -> Mapping[str, Any]:
    chosen, rejected = (pair.reply_a, pair.reply_b) if better == "a" else (pair.reply_b, pair.reply_a)
    return {
        "prompt": json.loads(row_json(Conversation(pair.prompt, Address(pair.address, 0))))["messages"],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def write_preferences(folder: Path, preferences: Preferences) -> Path:
    """Write the rows in one move.

    Raises:
        SaveError: the disk is full or refuses.
    """
    path = folder / ROWS
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in preferences.rows)
    try:
        write_bytes(path, lines.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise SaveError(
            "The rows could not be written; the verdicts are kept",
            where=str(path),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        ) from error
    return path
