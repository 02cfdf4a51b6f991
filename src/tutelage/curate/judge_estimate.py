"""What asking a judge would take, before it is asked: questions, tokens, money and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from tutelage.config.curation_judge import JudgeSettings
from tutelage.curate.judge_answers import JudgeAnswer, JudgeAnswers
from tutelage.curate.judge_prompt import Rubric, request_key
from tutelage.curate.token_counts import token_counts, tokenizer_file
from tutelage.system.chat_client import Prices
from tutelage.types import Conversation

CHARACTERS_A_TOKEN: Final = 4
"""Of English text, roughly; where no tokenizer is named."""
ASSUMED_ANSWER_TOKENS: Final = 60
"""Of one sentence and the scores as JSON; a judge that reasons first says more."""
COUNTED_TOGETHER: Final = 256
ANSWERS_READ: Final = 1000
"""Of those that are kept, for the mean length of the next."""


@dataclass(frozen=True, slots=True)
class JudgeEstimate:
    """What is left to ask.

    Attributes:
        rows: that would reach the judge; steps that must see all rows may take some out.
        answered: questions that are answered and not asked again.
        questions: that are left; rows that are the same are one.
        prompt_tokens: of their prompts.
        counted: whether by a tokenizer, rather than from characters.
        answer_tokens: expected of all their answers.
        most_answer_tokens: if each were as long as it may be.
        answers_measured: kept answers that this is taken from; 0 where it is assumed.
        cost: at the prices given; None without a price.
        most_cost: with the longest answers.
        seconds: at so many requests at once; None where no kept answer says how long one takes.
        parallel: requests at once.
        most_requests: that one run may send; None for all.
    """

    rows: int
    answered: int
    questions: int
    prompt_tokens: int
    counted: bool
    answer_tokens: int
    most_answer_tokens: int
    answers_measured: int
    cost: float | None
    most_cost: float | None
    seconds: float | None
    parallel: int
    most_requests: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def estimated(
    settings: JudgeSettings, model: str, rubric: Rubric, conversations: Iterable[Conversation]
) -> JudgeEstimate:
    """What asking about rows would take.

    Args:
        settings: of the step.
        model: the judge's name.
        rubric: what it is told.
        conversations: the rows, read once.
    """
    answers = JudgeAnswers.of(model, settings.answer_tokens)
    counted = _counter(settings)
    seen: set[str] = set()
    rows = answered = tokens = 0
    stream = iter(conversations)
    while batch := list(islice(stream, COUNTED_TOGETHER)):
        texts = []
        for conversation in batch:
            messages = rubric.messages(conversation)
            key = request_key(model, messages)
            if key not in seen:
                seen.add(key)
                answered += key in answers.known
                texts += [] if key in answers.known else [message["content"] for message in messages]
        rows += len(batch)
        tokens += sum(counted(texts))
    questions = len(seen) - answered
    kept = list(islice(answers.known.values(), ANSWERS_READ))
    each = sum(counted([answer.text for answer in kept])) / len(kept) if kept else ASSUMED_ANSWER_TOKENS
    prices = Prices(settings.prompt_price, settings.answer_price)
    has_price = bool(prices.prompt or prices.answer)
    expected, most = round(min(each, settings.answer_tokens) * questions), settings.answer_tokens * questions
    return JudgeEstimate(
        rows, answered, questions, tokens, settings.tokenizer is not None, expected, most, len(kept),
        prices.of(tokens, expected) if has_price else None, prices.of(tokens, most) if has_price else None,
        _seconds(kept, questions, settings.parallel), settings.parallel, settings.most_requests,
    )  # fmt: skip


def _counter(settings: JudgeSettings) -> Callable[[list[str]], list[int]]:
    if settings.tokenizer is None:
        return lambda texts: [-(-len(text) // CHARACTERS_A_TOKEN) for text in texts]
    otherwise = "take curate.judge.tokenizer out, and tokens are counted roughly"
    content = tokenizer_file("judge", "tokenizer", settings.tokenizer, otherwise).read_text(encoding="utf-8")
    return lambda texts: token_counts(texts, content)


def _seconds(kept: list[JudgeAnswer], questions: int, parallel: int) -> float | None:
    timed = [answer.seconds for answer in kept if answer.seconds is not None]
    return sum(timed) / len(timed) * questions / parallel if timed else None
