"""The step `judge`: what it asks, what it makes of answers, garbage and silence, and that nothing is paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.curate.test_model_scores import ROOT, contents, records, write_rows
from tests.support.fake_endpoint import FakeEndpoint, Reply, fake_endpoint, refused, said
from tests.support.judged_curation import judged
from tutelage.curate.judge_prompt import RUBRIC, Rubric
from tutelage.curate.request import Curated
from tutelage.errors import ConfigError, EndpointError, SourceNotFoundError, TutelageError
from tutelage.system import chat_client
from tutelage.types import Address, Conversation, Message

COUNT = 12
PLAIN = Rubric(RUBRIC, ("quality", "complexity"), 1, 5)
SHORTEST = Conversation((Message("user", "question 0."), Message("assistant", "yes ")), Address("rows", 1))
MOST_OF_ONE = chat_client.most_tokens(PLAIN.messages(SHORTEST), 512) + 40
"""Tokens that a request may take, of which the endpoint counts 100."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [f"question {number}." for number in range(COUNT)])


def number_in(body: dict[str, Any]) -> int:
    """Which row a request is about."""
    return int(str(body["messages"][1]["content"]).split("question ")[1].split(".")[0])


def scores(number: int) -> str:
    return json.dumps({"reason": f"row {number}", "quality": 1 + number % 5, "complexity": 2})


def good(body: dict[str, Any], _: int) -> Reply:
    return said(scores(number_in(body)))


Answering = Callable[[dict[str, Any], int], Reply]


def ask(rows: Path, out: Path, answer: Answering = good, **named: Any) -> tuple[Curated, FakeEndpoint]:
    with fake_endpoint(answer) as fake:
        return judged(rows, out, fake.url, **named), fake


def metadata(out: Path) -> dict[int, dict[str, Any]]:
    return {row["metadata"]["row"]: row["metadata"] for row in records(out / "data.jsonl")}


def test_scores_and_their_product_stand_in_the_metadata(rows: Path, tmp_path: Path) -> None:
    curated, fake = ask(rows, tmp_path / "out")
    assert len(fake.requests) == COUNT
    assert metadata(tmp_path / "out")[3]["judge"] == {"quality": 4, "complexity": 2, "product": 8.0}
    assert curated.notes == (f"judge: m scored {COUNT} of {COUNT} rows",)
    assert curated.incomplete == ()
    report = json.loads((tmp_path / "out" / "judge.json").read_text(encoding="utf-8"))
    assert (report["scored"], report["tokens"], report["without"]) == (COUNT, 100 * COUNT, {})
    assert report["scores"]["quality"] == {"1": 3, "2": 3, "3": 2, "4": 2, "5": 2}


def test_a_row_is_shown_between_marks_that_it_cannot_hold(rows: Path, tmp_path: Path) -> None:
    _, fake = ask(rows, tmp_path / "out")
    system, user = (message["content"] for message in fake.bodies[0]["messages"])
    mark = user.split()[0]
    assert user == f"{mark} user\nquestion 0.\n\n{mark} assistant\nyes \n\n{mark} end"
    assert system.startswith(RUBRIC)
    assert mark in system
    assert '"quality": 3, "complexity": 3' in system
    assert len({body["messages"][1]["content"].split()[0] for body in fake.bodies}) == COUNT


def test_all_that_a_row_says_is_shown() -> None:
    row = Conversation(
        (Message("user", "Sum?"), Message("assistant", "Four.", reasoning="2 + 2")), Address("rows", 1),
        tools=({"name": "add"},),
    )  # fmt: skip
    user = PLAIN.messages(row)[1]["content"]
    assert all(words in user for words in ('Tools on offer: [{"name": "add"}]', "2 + 2", "Four."))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"quality": 4, "complexity": 2}', True),
        ('```json\n{"quality": "4", "complexity": 2.0}\n```', True),
        ('<think>{"quality": 1, "complexity": 1}</think>{"reason": "x", "quality": 4, "complexity": 2}', True),
        ('{"quality": 4}', False),
        ('{"quality": 6, "complexity": 2}', False),
        ('{"quality": 4.5, "complexity": 2}', False),
        ('{"quality": true, "complexity": 2}', False),
        ('{"quality": "good", "complexity": 2}', False),
        ("Quality 4, complexity 2", False),
        ("", False),
        ("[" * 5000, False),
    ],
)
def test_what_counts_as_scores(text: str, found: bool) -> None:
    assert PLAIN.parse(text) == ({"quality": 4, "complexity": 2} if found else None)


def test_nothing_is_asked_twice_in_whatever_folder(rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "one")
    _, fake = ask(rows, tmp_path / "one")
    assert fake.requests == []
    with fake_endpoint(good) as other:
        judged(rows, tmp_path / "two", other.url)
        assert other.requests == []
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one["data.jsonl"] == two["data.jsonl"]
    _, fake = ask(rows, tmp_path / "three", model="another")
    assert len(fake.requests) == COUNT


def test_the_same_comes_of_several_requests_at_once(rows: Path, tmp_path: Path, cache: Path) -> None:
    four = threading.Barrier(4, timeout=20)

    def answer(body: dict[str, Any], number: int) -> Reply:
        four.wait()
        return good(body, number)

    ask(rows, tmp_path / "four", answer, parallel=4, timeout=30.0)
    cache.rename(tmp_path / "away")
    ask(rows, tmp_path / "one")
    four_at_once, one = contents(tmp_path / "four"), contents(tmp_path / "one")
    assert all(four_at_once[name] == one[name] for name in ("data.jsonl", "ledger.jsonl", "funnel.json"))


def test_rows_that_are_the_same_are_asked_about_once(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ["question 1.", "question 2."])
    rows.write_text(rows.read_text(encoding="utf-8") * 3, encoding="utf-8")
    _, fake = ask(rows, tmp_path / "out")
    assert len(fake.requests) == 2
    assert len({json.dumps(one["judge"]) for one in metadata(tmp_path / "out").values()}) == 2


def test_a_minimum_drops_with_the_judges_reason_and_is_off_by_default(rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "out", minimum={"quality": 3})
    kept = metadata(tmp_path / "out")
    assert {number for number in range(COUNT) if number not in kept} == {0, 1, 5, 6, 10, 11}
    first = records(tmp_path / "out" / "ledger.jsonl")[0]
    assert (first["dropped"], first["detail"]) == ("judged_low", "quality 1, at least 3: row 0")


def test_garbage_is_counted_by_reason_with_samples_and_not_asked_again(rows: Path, tmp_path: Path) -> None:
    def garbage(body: dict[str, Any], _: int) -> Reply:
        number = number_in(body)
        if number == 0:
            return said("Both are nice.")
        if number == 1:
            return said('{"quality": 4, "compl', finish_reason="length")
        return refused(400, "too long") if number == 2 else good(body, _)

    curated, fake = ask(rows, tmp_path / "out", garbage)
    assert len(fake.requests) == COUNT - 3 + 3 + 3 + 1, "two answers without scores are reminded of them twice"
    report = json.loads((tmp_path / "out" / "judge.json").read_text(encoding="utf-8"))["without"]
    assert report == {
        "the answer holds no scores": {"rows": 1, "samples": [{"address": f"{rows}:1", "answer": "Both are nice."}]},
        "the answer was cut at curate.judge.answer_tokens before its scores": {
            "rows": 1, "samples": [{"address": f"{rows}:2", "answer": '{"quality": 4, "compl'}],
        },
        "status 400: too long": {"rows": 1, "samples": [{"address": f"{rows}:3", "answer": ""}]},
    }  # fmt: skip
    entries = {entry["row"]: entry for entry in records(tmp_path / "out" / "ledger.jsonl")}
    assert (entries[0]["changed"], entries[0]["detail"]) == ("not_scored", "the answer holds no scores")
    assert len(metadata(tmp_path / "out")) == COUNT
    assert curated.incomplete == ()
    _, fake = ask(rows, tmp_path / "two", garbage)
    assert [number_in(body) for body in fake.bodies] == [2], "what was refused cost nothing and is tried again"
    _, fake = ask(rows, tmp_path / "three", good, answer_tokens=1024)
    assert {number_in(body) for body in fake.bodies} == {1, 2}, "an answer that was cut may be whole with more room"


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ({"most_requests": 5}, "curate.judge.most_requests 5"),
        ({"most_tokens": MOST_OF_ONE + 450}, f"curate.judge.most_tokens {MOST_OF_ONE + 450}"),
        ({"most_cost": (MOST_OF_ONE + 450) / 1e6, "prompt_price": 1.0, "answer_price": 1.0}, "curate.judge.most_cost "),
    ],
)
def test_a_spent_budget_ends_it_and_the_same_request_goes_on(
    rows: Path, tmp_path: Path, budget: dict[str, Any], named: str
) -> None:
    curated, fake = ask(rows, tmp_path / "out", **budget)
    asked = len(fake.requests)
    assert 0 < asked < COUNT
    (line,) = curated.incomplete
    assert f"the budget is spent: {named}" in line
    assert f"{COUNT - asked} rows have no score" in line
    kept = metadata(tmp_path / "out")
    assert [number for number in range(COUNT) if "judge" in kept[number]] == list(range(asked))
    for _ in range(COUNT):
        with fake_endpoint(good) as again:
            curated = judged(rows, tmp_path / "out", again.url, **budget)
            asked += len(again.requests)
        if not curated.incomplete:
            break
    assert asked == COUNT
    assert all("judge" in one for one in metadata(tmp_path / "out").values())


def test_what_comes_behind_is_computed_anew_once_more_is_known(rows: Path, tmp_path: Path) -> None:
    steps, select = ("judge", "select"), {"keep": 2, "method": "score", "score": "judge.quality"}
    with fake_endpoint(good) as fake:
        judged(rows, tmp_path / "out", fake.url, steps=steps, select=select, most_requests=3)
        assert list(metadata(tmp_path / "out")) == [1, 2]
        judged(rows, tmp_path / "out", fake.url, steps=steps, select=select, most_requests=3)
        assert list(metadata(tmp_path / "out")) == [3, 4]
        for _ in range(2):
            judged(rows, tmp_path / "out", fake.url, steps=steps, select=select, most_requests=3)
        again = judged(rows, tmp_path / "out", fake.url, steps=steps, select=select, most_requests=3)
    assert list(metadata(tmp_path / "out")) == [4, 9]
    assert len(fake.requests) == COUNT
    assert again.computed == {}, "all is there"


def test_a_silent_endpoint_ends_it_and_what_was_paid_for_is_kept(rows: Path, tmp_path: Path) -> None:
    log: list[str] = []

    def falling_silent(body: dict[str, Any], number: int) -> Reply:
        whole = good(body, number)
        return whole if number < 4 else Reply(body=whole.body, stall=15.0)

    curated, _ = ask(rows, tmp_path / "out", falling_silent, timeout=1.5, retries=0, parallel=5, said=log)
    (line,) = curated.incomplete
    assert "no whole answer in 1.5 s" in line
    assert f"{COUNT - 4} rows have no score" in line
    assert any("curate.judge.timeout" in text for text in log)
    _, fake = ask(rows, tmp_path / "two")
    assert len(fake.requests) == COUNT - 4


def test_a_key_that_is_refused_later_ends_it_at_once(rows: Path, tmp_path: Path) -> None:
    log: list[str] = []

    def expiring(body: dict[str, Any], number: int) -> Reply:
        return good(body, number) if number < 2 else refused(401, "no such key")

    curated, fake = ask(rows, tmp_path / "out", expiring, said=log)
    assert len(fake.requests) == 3
    assert "status 401: no such key" in curated.incomplete[0]
    assert any("curate.judge.key_env NAME" in text for text in log)
    assert len(metadata(tmp_path / "out")) == COUNT


def test_an_endpoint_that_never_answered_is_an_error(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(EndpointError) as raised:
        ask(rows, tmp_path / "out", lambda _, __: refused(401, "no such key"))
    assert "curate.judge.key_env NAME" in str(raised.value.fix)
    with pytest.raises(EndpointError) as raised:
        judged(rows, tmp_path / "out", "http://127.0.0.1:9/v1")
    assert "curate.judge.url" in str(raised.value.fix)
    curated, _ = ask(rows, tmp_path / "out")
    assert curated.incomplete == ()


def test_limits_and_passing_failures_are_waited_for(rows: Path, tmp_path: Path) -> None:
    troubles = [refused(429, Retry_After="0"), refused(500), Reply(cut_connection=True), Reply(body=b"<html>")]

    def limited(body: dict[str, Any], number: int) -> Reply:
        return troubles[number // 2 % 4] if number % 2 and number < 8 else good(body, number)

    curated, _ = ask(rows, tmp_path / "out", limited, retries=3)
    assert curated.incomplete == ()
    assert all("judge" in one for one in metadata(tmp_path / "out").values())


def test_after_a_kill_only_what_was_not_answered_is_asked(rows: Path, tmp_path: Path) -> None:
    process: subprocess.Popen[bytes] | None = None

    def answer(body: dict[str, Any], number: int) -> Reply:
        if number == 7 and process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return good(body, number)

    with fake_endpoint(answer) as fake:
        command = [sys.executable, "-m", "tests.support.judged_curation", str(rows), str(tmp_path / "out"), fake.url]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
        assert process.wait(timeout=60) == -signal.SIGKILL, process.communicate()[1]
        assert len(fake.requests) == 8
    process = None
    _, fake = ask(rows, tmp_path / "out")
    assert len(fake.requests) == COUNT - 7
    assert all("judge" in one for one in metadata(tmp_path / "out").values())


def test_the_key_is_sent_and_stands_in_no_file(
    rows: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    log: list[str] = []
    _, fake = ask(rows, tmp_path / "out", key_env="A_KEY", said=log)
    assert {headers["Authorization"] for _, headers, _ in fake.requests} == {"Bearer sk-very-secret"}
    files = [path for folder in (tmp_path / "out", cache) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"very-secret" in path.read_bytes()]
    assert "very-secret" not in "".join(log)


def test_a_rubric_of_ones_own(rows: Path, tmp_path: Path) -> None:
    file = tmp_path / "rubric.txt"
    file.write_text("politeness - how polite the reply is, 0 to 10", encoding="utf-8")
    table = {"rubric": str(file), "scores": ["politeness"], "lowest": 0, "highest": 10}
    _, fake = ask(rows, tmp_path / "out", lambda _, __: said('{"politeness": 7}'), **table)
    system = fake.bodies[0]["messages"][0]["content"]
    assert system.startswith("politeness - how polite")
    assert '{"reason": "one sentence", "politeness": 5}' in system
    assert metadata(tmp_path / "out")[0]["judge"] == {"politeness": 7}
    file.write_text("politeness - how rude the reply is", encoding="utf-8")
    _, fake = ask(rows, tmp_path / "out", lambda _, __: said('{"politeness": 2}'), **table)
    assert len(fake.requests) == COUNT


@pytest.mark.parametrize(
    ("table", "error", "where"),
    [
        ({"url": None}, ConfigError, "curate.judge.url"),
        ({"model": None}, ConfigError, "curate.judge.model"),
        ({"url": "ftp://x"}, ConfigError, "curate.judge.url"),
        ({"key_env": "NO_SUCH_KEY"}, ConfigError, "curate.judge.key_env"),
        ({"rubric": "no/such/file"}, SourceNotFoundError, "no/such/file"),
        ({"scores": ["wit"], "rubric": "README.md"}, ConfigError, "README.md"),
        ({"minimum": {"qualty": 3}}, ConfigError, "curate.judge.minimum"),
        ({"lowest": 5}, ConfigError, "curate.judge.highest"),
        ({"most_cost": 1.0}, ConfigError, "curate.judge.most_cost"),
    ],
)
def test_what_cannot_work_is_said_before_any_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], error: type[TutelageError], where: str
) -> None:
    monkeypatch.chdir(ROOT)
    named = {"url": "http://127.0.0.1:9/v1"} | table
    with pytest.raises(error) as raised:
        judged(tmp_path / "no_such_rows.jsonl", tmp_path / "out", **named)
    assert raised.value.where == where
    assert not (tmp_path / "out").exists()
