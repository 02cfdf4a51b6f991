from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.annotation import write_prompts
from tutelage.annotate.asked import AskedPrompt, asked_prompts
from tutelage.annotate.preference import Sampled, preferences_of, sample_pairs, write_preferences
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.verdicts import Verdict, VerdictFile
from tutelage.ledger import Ledger
from tutelage.synthesize.generator import Reply, Request, Sampling, Save
from tutelage.synthesize.reply_book import ReplyBook

SAMPLING = Sampling(1.0, 1.0, 0.0, 16)


class Scripted:
    """A model that says, for each prompt in turn, what it is told to."""

    name = "scripted"

    def __init__(self, *replies: Reply, ends_after: int | None = None) -> None:
        self.replies, self.asked, self.ends_after = replies, [], ends_after
        self.roles: list[list[str]] = []

    def generate(self, requests: Sequence[Request], save: Save) -> str | None:
        for request in requests:
            if self.ends_after is not None and len(self.asked) >= self.ends_after:
                return "the budget is spent"
            draw = int(request.name.rpartition("/")[2])
            self.asked.append(request.name)
            self.roles.append([message["role"] for message in request.messages])
            save(request, self.replies[min(draw, len(self.replies) - 1)])
        return None


def prompts(folder: Path, rows: list[dict[str, Any]]) -> tuple[AskedPrompt, ...]:
    return asked_prompts([str(write_prompts(folder, rows))], ledger=Ledger()).prompts


def sample(folder: Path, asked: Sequence[AskedPrompt], model: Scripted, draws: int = 6) -> Sampled:
    book = ReplyBook(folder / "out" / "replies.jsonl", model)
    (folder / "out").mkdir(exist_ok=True)
    return sample_pairs(asked, book, SAMPLING, identity="w/0", draws=draws, seed=0)


def test_samples_until_two_whole_replies_differ_and_counts_the_others(tmp_path: Path):
    asked = prompts(tmp_path, [{"prompt": "one"}])
    model = Scripted(
        Reply("same", 3),
        Reply(" same ", 3),
        Reply("cut of", 3, is_whole=False),
        Reply("", 2),
        Reply(None, 0),
        Reply("new", 3),
    )
    sampled = sample(tmp_path, asked, model)
    assert sampled.pairing is not None
    (pair,) = sampled.pairing.pairs
    assert {pair.reply_a, pair.reply_b} == {"same", "new"}
    assert dict(sampled.unusable) == {
        "the same as the other": 1, "cut at its limit": 1, "says nothing": 1, "no reply": 1,
    }  # fmt: skip
    again = Scripted(Reply("never asked", 1))
    assert sample(tmp_path, asked, again).pairing == sampled.pairing
    assert again.asked == []


def test_a_prompt_with_one_reply_only_is_given_up_and_roles_are_kept(tmp_path: Path):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    model = Scripted(Reply("always this", 1))
    sampled = sample(tmp_path, prompts(tmp_path, [{"messages": turns}]), model, draws=4)
    assert (sampled.pairing, sampled.without, len(model.asked)) == (None, 1, 4)
    assert model.roles[0] == ["system", "user"]


def test_an_end_in_the_middle_goes_on_without_asking_twice(tmp_path: Path):
    asked = prompts(tmp_path, [{"prompt": f"question {number}"} for number in range(3)])
    first = Scripted(Reply("a", 1), Reply("b", 1), ends_after=3)
    assert sample(tmp_path, asked, first).ended == "the budget is spent"
    second = Scripted(Reply("a", 1), Reply("b", 1))
    sampled = sample(tmp_path, asked, second)
    assert sampled.pairing is not None
    assert len(sampled.pairing.pairs) == 3
    assert set(first.asked).isdisjoint(second.asked)
    assert len(first.asked) + len(second.asked) == 6


def test_rows_hold_what_was_preferred_and_nothing_of_ties(tmp_path: Path):
    asked = prompts(tmp_path, [{"prompt": f"question {number}"} for number in range(4)])
    pairing = sample(tmp_path, asked, Scripted(Reply("a", 1), Reply("b", 1))).pairing
    assert pairing is not None
    verdicts = VerdictFile.open(tmp_path / "out")
    first, second, third, _ = pairing.pairs
    anna, ben = Rating(pairing.pairs, verdicts, "anna"), Rating(pairing.pairs, verdicts, "ben")
    anna.say(first, "left")
    anna.say(second, "tie")
    anna.say(third, "left")
    ben.say(third, "right" if _left(verdicts, "anna", third.key) == _left_of(ben, third) else "left")
    preferences = preferences_of(pairing, verdicts)
    (row,) = preferences.rows
    chosen = first.shown(_left(verdicts, "anna", first.key))[0]
    assert row["prompt"] == [{"role": "user", "content": first.prompt[0].content}]
    assert row["chosen"] == [{"role": "assistant", "content": chosen}]
    assert row["rejected"] == [{"role": "assistant", "content": "a" if chosen == "b" else "b"}]
    assert (preferences.ties, preferences.split, preferences.unjudged) == (1, 1, 1)
    path = write_preferences(tmp_path / "out", preferences)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [row]


def _left(verdicts: VerdictFile, rater: str, key: str) -> Any:
    return verdicts.of("person", rater)[key, "a"].left


def _left_of(rating: Rating, pair: Any) -> Any:
    from tutelage.evaluate.pairwise.pairs import left_side

    return left_side(pair, seed=rating.seed, rater=rating.rater)


def test_a_judge_counts_where_it_says_the_same_in_both_orders(tmp_path: Path):
    asked = prompts(tmp_path, [{"prompt": "one"}, {"prompt": "two"}])
    pairing = sample(tmp_path, asked, Scripted(Reply("a", 1), Reply("b", 1))).pairing
    assert pairing is not None
    verdicts = VerdictFile.open(tmp_path / "out")
    for pair, choices in zip(pairing.pairs, (("b", "b"), ("a", "b")), strict=True):
        for side, choice in zip(("a", "b"), choices, strict=True):
            verdicts.append(Verdict(pair=pair.key, kind="judge", rater="j", left=side, choice=choice))
    preferences = preferences_of(pairing, verdicts)
    assert [row["chosen"][0]["content"] for row in preferences.rows] == [pairing.pairs[0].reply_b]
    assert preferences.ties == 1
