"""Scores by a judge: a model behind an OpenAI-compatible endpoint reads each row. What it answered is not asked again.

Where the budget ends or the endpoint fails, the step ends as well: rows without a score go on without one, and the same
command goes on later. An endpoint that never answered is an error.

Shape legend: N = rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tutelage.config.curation_judge import JudgeSettings
from tutelage.curate.judge_answers import JudgeAnswer, JudgeAnswers
from tutelage.curate.judge_estimate import JudgeEstimate, estimated
from tutelage.curate.judge_prompt import RUBRIC, Rubric, labels_of, reason_of, request_key
from tutelage.curate.step import Decisions, Here, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.errors import ConfigError, EndpointError, SourceNotFoundError, cause_of
from tutelage.system.chat_client import Budget, Client, Prices
from tutelage.system.chat_endpoint import (
    ChatMessage,
    Endpoint,
    SettingNames,
    endpoint_url,
    key_from_environment,
    shows_key,
)
from tutelage.system.chat_questions import Answered, Reading, ask_all, why_none
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "judge"
NOT_SCORED, JUDGED_LOW = "not_scored", "judged_low"
ASKED_TOGETHER = 256
"""Rows whose prompts are in memory at once."""
SAMPLES = 3
"""Of each reason for no score that the report shows."""
SAMPLE_CHARACTERS = 200
NOUN = "scores"
NAMES = SettingNames(
    url="curate.judge.url", model="curate.judge.model", key="curate.judge.key_env", timeout="curate.judge.timeout",
    answer_tokens="curate.judge.answer_tokens", most_requests="curate.judge.most_requests",
    most_tokens="curate.judge.most_tokens", most_cost="curate.judge.most_cost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowQuestion:
    """What is asked about a row; `key` is the hash of model and prompt."""

    key: str
    messages: tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Judge:
    """The step.

    Attributes:
        settings: whom it asks, and what that may cost.
        rubric: what is scored.
        endpoint: with the key, in this process alone.
        context: who is told how far it is.
        facts: the rubric, which may stand in a file.
    """

    settings: JudgeSettings
    rubric: Rubric
    endpoint: Here[Endpoint]
    context: Here[StepContext]
    facts: list[str] = field(default_factory=list)
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Nothing: one process asks, so that one budget holds."""
        import pyarrow as pa

        return pa.record_batch({"nothing": pa.nulls(len(conversations), pa.int8())})

    def estimate(self, conversations: Iterable[Conversation]) -> JudgeEstimate:
        """What asking about rows would take; nobody is asked."""
        return estimated(self.settings, self.endpoint.value.model, self.rubric, conversations)

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:  # noqa: ARG002 there are none
        """All rows go on, those with scores with them, but for rows below a minimum.

        Where not all was asked, `unfinished` may take those without a score out.
        """
        asking = _Asking(self, rows)
        asking.run()
        return asking.decisions()


@dataclass(slots=True)
class _Asking:
    """One pass over the rows.

    Attributes:
        budget: of this run.
        labels, remarks, low: what is said of rows, by row.
        trouble: why a row has no score, by the key of its request.
        ended: why nothing more is asked.
    """

    step: Judge
    rows: Rows
    answers: JudgeAnswers = field(init=False)
    budget: Budget = field(init=False)
    labels: dict[int, dict[str, float]] = field(default_factory=dict)
    remarks: dict[int, tuple[str, str]] = field(default_factory=dict)
    low: dict[int, str] = field(default_factory=dict)
    unscored: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    said: Any = field(default_factory=hashlib.sha256)
    tokens: int = 0
    ended: str | None = None

    def __post_init__(self) -> None:
        settings = self.step.settings
        prices = Prices(settings.prompt_price, settings.answer_price)
        self.answers = JudgeAnswers.of(self.step.endpoint.value.model, settings.answer_tokens)
        self.budget = Budget(settings.most_requests, settings.most_tokens, settings.most_cost, prices, NAMES)

    def run(self) -> None:
        """Ask about each row whose answer is not known, as long as the budget and the endpoint allow."""
        context, endpoint = self.step.context.value, self.step.endpoint.value
        if shows_key(endpoint):
            context.log("note: the key travels unencrypted, as the endpoint is http and on another machine")
        done, stored = 0, iter(self.rows)
        context.progress(self._title, 0, len(self.rows))
        while batch := list(islice(stored, ASKED_TOGETHER)):
            questions = [self._question(row.conversation) for row in batch]
            self._ask([question for question in questions if question.key not in self.answers.known])
            for row, question in enumerate(questions, start=done):
                self._settle(row, question.key)
            done += len(batch)
            context.progress(self._title, done, len(self.rows))
        spent = f"{self.budget.requests:,} requests, {self.budget.tokens:,} tokens"
        cost = f", {self.budget.cost:.4g} at the prices given" if self.budget.cost else ""
        context.log(f"{NAME}: {spent}{cost} were spent now; answers are kept in {self.answers.path}")

    @property
    def _title(self) -> str:
        return f"{NAME}: {self.step.endpoint.value.model} reads rows"

    def _question(self, conversation: Conversation) -> RowQuestion:
        messages = self.step.rubric.messages(conversation)
        return RowQuestion(request_key(self.step.endpoint.value.model, messages), messages)

    def _ask(self, questions: Sequence[RowQuestion]) -> None:
        """Rows that are the same are asked about once."""
        asked = list({question.key: question for question in questions}.values())
        if self.ended is not None or not asked:
            return
        settings, rubric, context = self.step.settings, self.step.rubric, self.step.context.value
        client = Client(self.step.endpoint.value, self.budget, settings.retries, log=context.log)
        reading = Reading(rubric.parse, rubric.reminder, NOUN)
        try:
            self.ended = ask_all(client, asked, reading, self._save, parallel=settings.parallel)
        except EndpointError as error:
            if not self.answers.known:
                raise  # nothing was paid for, so nothing is lost, and a wrong address is a mistake to mend
            self.ended = f"{error.what}: {error.found}"
            context.log(str(error))

    def _save(self, answered: Answered[RowQuestion, dict[str, int]]) -> None:
        key = answered.question.key
        if answered.answer is None:
            self.trouble[key] = answered.trouble
        else:
            answer = answered.answer
            self.answers.add(key, JudgeAnswer(answer.text, answered.tokens, answer.was_cut, answered.seconds))

    def _settle(self, row: int, key: str) -> None:
        answer = self.answers.known.get(key)
        scores = None if answer is None else self.step.rubric.parse(answer.text)
        self.said.update(json.dumps([key, scores]).encode())
        self.tokens += 0 if answer is None else answer.tokens
        if answer is not None and scores is not None:
            self.labels[row] = labels_of(scores)
            self._hold_to_minimum(row, scores, answer.text)
            return
        if answer is None:
            reason = self.trouble.get(key, "it was not asked for")
        else:
            reason = why_none(answer.text, NOUN, NAMES.answer_tokens, was_cut=answer.was_cut)
        self.unscored[reason] += 1
        self.remarks[row] = NOT_SCORED, reason
        samples = self.samples.setdefault(reason, [])
        if len(samples) < SAMPLES:
            shown = "" if answer is None else answer.text[:SAMPLE_CHARACTERS]
            samples.append({"address": str(self.rows.address(row)), "answer": shown})

    def _hold_to_minimum(self, row: int, scores: dict[str, int], text: str) -> None:
        for name, least in self.step.settings.minimum.items():
            if scores[name] < least:
                reason = reason_of(text)
                self.low[row] = f"{name} {scores[name]}, at least {least:g}" + (f": {reason}" if reason else "")
                return

    def decisions(self) -> Decisions:
        """What becomes of the rows."""
        reasons, evidence, remarks = dict.fromkeys(self.low, JUDGED_LOW), dict(self.low), self.remarks
        if self.ended is not None and self.step.settings.unfinished == "scored":
            reasons |= dict.fromkeys(remarks, NOT_SCORED)
            evidence |= {row: why for row, (_, why) in remarks.items()}
            remarks = {}
        keep = np.ones(len(self.rows), dtype=np.bool_)
        keep[list(reasons)] = False
        scored = len(self.labels)
        first = f"{NAME}: {self.step.endpoint.value.model} scored {scored:,} of {len(self.rows):,} rows"
        notes = [first, *(f"{NAME}: no score, {count:,} times: {why}" for why, count in self.unscored.most_common())]
        incomplete = ""
        if self.ended is not None:
            incomplete = f"{NAME}: not all was asked, as {self.ended}; {len(self.rows) - scored:,} rows have no score"
        kept_labels = {row: labels for row, labels in self.labels.items() if row not in self.low}
        return Decisions(
            keep, reasons, evidence, labels=kept_labels, remarks=remarks,
            report=self._report(), notes=tuple(notes), outside=self.said.hexdigest(), incomplete=incomplete,
        )  # fmt: skip

    def _report(self) -> dict[str, Any]:
        names = next(iter(self.labels.values()), {})
        given = {name: Counter(labels[name] for labels in self.labels.values()) for name in names}
        scores = {name: {f"{score:g}": counts[score] for score in sorted(counts)} for name, counts in given.items()}
        return {
            "model": self.step.endpoint.value.model,
            "endpoint": self.step.endpoint.value.url.partition("?")[0],
            "rubric": self.step.rubric.text,
            "rows": len(self.rows),
            "scored": len(self.labels),
            "tokens": self.tokens,
            "scores": scores,
            "without": {why: {"rows": count, "samples": self.samples[why]} for why, count in self.unscored.items()},
        }


def _build(settings: JudgeSettings, context: StepContext) -> Judge:
    if settings.url is None or settings.model is None:
        missing = "url" if settings.url is None else "model"
        raise ConfigError(
            "A judge needs an endpoint and the name of a model there",
            where=f"curate.{NAME}.{missing}",
            found="nothing",
            expected="any server that speaks the OpenAI API, here or elsewhere",
            fix="set curate.judge.url=http://127.0.0.1:8000/v1 and curate.judge.model=NAME",
        )
    _require_sound(settings)
    rubric = Rubric(_rubric_text(settings), tuple(settings.scores), settings.lowest, settings.highest)
    key = key_from_environment(settings.key_env, NAMES)
    endpoint = Endpoint(
        endpoint_url(settings.url, NAMES), settings.model.strip(), key, settings.timeout, settings.answer_tokens, NAMES
    )
    return Judge(settings, rubric, Here(endpoint), Here(context), [rubric.text])


def _require_sound(settings: JudgeSettings) -> None:
    problem = None
    if unknown := sorted(settings.minimum.keys() - set(settings.scores)):
        problem = "minimum", f"{', '.join(unknown)}, which the judge is not asked for", ", ".join(settings.scores)
    elif settings.highest <= settings.lowest:
        problem = "highest", str(settings.highest), f"more than curate.judge.lowest, which is {settings.lowest}"
    elif settings.most_cost is not None and not (settings.prompt_price or settings.answer_price):
        problem = (
            "most_cost",
            f"{settings.most_cost:g} and no price",
            "prompt_price or answer_price, by a million tokens",
        )
    if problem is not None:
        name, found, expected = problem
        raise ConfigError(
            "A setting of the judge cannot be kept to", where=f"curate.{NAME}.{name}", found=found, expected=expected,
            fix=f"change curate.{NAME}.{name}",
        )  # fmt: skip


def _rubric_text(settings: JudgeSettings) -> str:
    if settings.rubric is None:
        return RUBRIC
    try:
        text = Path(settings.rubric).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceNotFoundError(
            "The rubric cannot be read", where=settings.rubric, found=cause_of(error), expected="a text file in UTF-8",
            fix="check curate.judge.rubric",
        ) from error  # fmt: skip
    if missing := [name for name in settings.scores if not re.search(rf"\b{re.escape(name)}\b", text)]:
        raise ConfigError(
            "The rubric does not speak of what is to be scored", where=settings.rubric,
            found=f"nothing about {', '.join(missing)}", expected="each name of curate.judge.scores, and what it means",
            fix="name in curate.judge.scores what the rubric asks for",
        )  # fmt: skip
    return text


JUDGE = StepDefinition(NAME, "asks a model behind an endpoint for scores of each row", JudgeSettings, _build)
