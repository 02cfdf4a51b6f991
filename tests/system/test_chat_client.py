"""Every way in which an endpoint fails, against a local one."""

from __future__ import annotations

import datetime
import email.utils
import socket
import threading
import time
from typing import Any

import pytest

from tests.support.fake_endpoint import Reply, fake_endpoint, refused, said
from tutelage.errors import ConfigError, EndpointError
from tutelage.system.chat_client import (
    MOST_FAILURES,
    Budget,
    BudgetSpentError,
    Client,
    Prices,
    StoppedError,
    most_tokens,
)
from tutelage.system.chat_endpoint import Answer, Endpoint, Trouble, endpoint_url, key_from_environment, shows_key

ASKED = [{"role": "user", "content": "Which?"}]
GOOD = said("1")


def client(url: str, **named: Any) -> Client:
    of_endpoint = {key: named.pop(key) for key in ("key", "timeout_seconds", "answer_tokens") if key in named}
    endpoint = Endpoint(endpoint_url(url), "m", **({"timeout_seconds": 5.0} | of_endpoint))
    return Client(endpoint, named.pop("budget", Budget()), first_wait_seconds=0.01, **({"retries": 2} | named))


def outcome_of(*replies: Reply, **named: Any) -> tuple[Answer | Trouble, int]:
    """What `ask` returns where the endpoint sends these replies, the last one from then on; and how often it asked."""
    with fake_endpoint(lambda _, number: replies[min(number, len(replies) - 1)]) as fake:
        outcome = client(fake.url, **named).ask(ASKED)
        return outcome, len(fake.requests)


def test_an_answer_and_what_is_sent_for_it():
    with fake_endpoint(lambda _, __: GOOD) as fake:
        outcome = client(fake.url, key="secret", answer_tokens=77).ask(ASKED)
        assert outcome == Answer("1", 100, was_cut=False)
        ((path, headers, body),) = fake.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "m", "messages": ASKED, "temperature": 0, "max_tokens": 77}


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "meant for somebody else")
    with fake_endpoint(lambda _, __: GOOD) as fake:
        client(fake.url).ask(ASKED)
        assert "Authorization" not in fake.requests[0][1]


@pytest.mark.parametrize(
    "trouble",
    [
        refused(500),
        refused(503),
        refused(408),
        refused(429, Retry_After="0"),
        Reply(cut_connection=True),
        Reply(body=b""),
        Reply(body=b'{"choices": [{"message": {"content": "1"'),
        Reply(body=b"<!DOCTYPE html><p>hello"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": 3}}]}'),
        Reply(body=b"[]"),
        Reply(body=GOOD.body[:20], announced=len(GOOD.body)),
        Reply(body=b"\xff\xfe\x00"),
        Reply(body=b"[" * 100_000),
    ],
)
def test_what_passes_is_tried_again(trouble: Reply):
    outcome, requests = outcome_of(trouble, GOOD)
    assert isinstance(outcome, Answer)
    assert requests == 2


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (refused(500, "out of order"), "status 500: out of order"),
        (Reply(body=b"<html>a page</html>"), "HTML, not JSON: <html>a page</html>"),
        (Reply(body=b'{"choices": [{"mess'), "no whole JSON"),
        (Reply(body=b'{"answer": "1"}'), "JSON, but no chat completion"),
        (Reply(body=b""), "the body is empty"),
        (Reply(body=GOOD.body[:20], announced=len(GOOD.body)), "breaks off"),
        (Reply(cut_connection=True), ""),
    ],
)
def test_what_does_not_pass_is_named_after_the_retries(trouble: Reply, reason: str):
    outcome, requests = outcome_of(trouble)
    assert isinstance(outcome, Trouble)
    assert reason in outcome.reason
    assert requests == 3


@pytest.mark.parametrize("trouble", [Reply(body=GOOD.body, stall=2.0), Reply(body=GOOD.body, dribble=0.05)])
def test_an_endpoint_that_stalls_or_dribbles_is_given_up_in_time(trouble: Reply):
    started = time.monotonic()
    outcome, requests = outcome_of(trouble, timeout_seconds=0.2, retries=1)
    assert isinstance(outcome, Trouble)
    assert outcome.reason == "no whole answer in 0.2 s"
    assert requests == 2
    assert time.monotonic() - started < 2 * 2.0  # it would stall or dribble for longer


def test_money_is_counted_by_what_the_endpoint_counted():
    budget = Budget(prices=Prices(prompt=2.0, answer=10.0))
    outcome_of(GOOD, budget=budget)
    assert budget.cost == pytest.approx((95 * 2.0 + 5 * 10.0) / 1e6)
    assert (budget.requests, budget.tokens) == (1, 100)


def test_money_is_set_aside_at_its_most_and_all_of_it_is_spent_where_nothing_is_counted():
    prices = Prices(prompt=2.0, answer=10.0)
    most = prices.of(most_tokens(ASKED, 512) - 512, 512)
    budget = Budget(max_cost=1.5 * most, prices=prices)
    with fake_endpoint(lambda _, __: said("1", tokens=None)) as fake:
        one = client(fake.url, budget=budget)
        one.ask(ASKED)
        assert budget.cost == pytest.approx(most)
        with pytest.raises(BudgetSpentError):
            one.ask(ASKED)
        assert len(fake.requests) == 1


def test_a_prompt_that_is_refused_is_not_asked_again():
    outcome, requests = outcome_of(refused(400, "context length exceeded"))
    assert isinstance(outcome, Trouble)
    assert (outcome.reason, requests) == ("status 400: context length exceeded", 1)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (refused(401, "bad key"), "--key-env"),
        (refused(403, "no access"), "--key-env"),
        (refused(404, "no such model"), "no such model"),
        (Reply(307, headers={"Location": "http://elsewhere.invalid/v1"}), "elsewhere.invalid"),
        (Reply(429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}'), "nothing left"),
        (refused(429, "tomorrow", Retry_After="86400"), "asks to wait 86400 s"),
    ],
)
def test_what_concerns_every_prompt_ends_it_at_once(trouble: Reply, words: str):
    with fake_endpoint(lambda _, __: trouble) as fake:
        with pytest.raises(EndpointError) as caught:
            client(fake.url, key="secret").ask(ASKED)
        assert len(fake.requests) == 1
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_follows_no_redirect():
    with fake_endpoint(lambda _, __: GOOD) as thief:
        there = Reply(302, headers={"Location": thief.url})
        with fake_endpoint(lambda _, __: there) as fake, pytest.raises(EndpointError):
            client(fake.url, key="secret").ask(ASKED)
        assert thief.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_where_nothing_ever_answered_nothing_is_tried_again(host: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(EndpointError, match="does not answer") as caught:
        Client(Endpoint(endpoint_url(f"http://{host}:{port}/v1"), "m"), Budget(), retries=4).ask(ASKED)
    assert "cannot be reached" in str(caught.value)
    assert time.monotonic() - started < 5


def test_the_wait_that_is_asked_for_is_kept():
    started = time.monotonic()
    outcome, _ = outcome_of(refused(429, Retry_After="0.3"), GOOD)
    assert isinstance(outcome, Answer)
    assert time.monotonic() - started >= 0.3


def test_a_date_to_wait_for_is_understood():
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    with pytest.raises(EndpointError, match=r"asks to wait 17\d{4} s"):
        outcome_of(refused(503, Retry_After=email.utils.format_datetime(soon, usegmt=True)))


def test_waits_grow_twofold(monkeypatch: pytest.MonkeyPatch):
    waits = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return False

    outcome_of(refused(500), retries=4, stop=Clock())
    assert waits == [0.01, 0.02, 0.04, 0.08]


def test_many_prompts_in_a_row_that_come_to_nothing_end_it():
    with fake_endpoint(lambda _, __: Reply(body=b"<html>a web page</html>")) as fake:
        asking = client(fake.url, retries=0)
        for _ in range(MOST_FAILURES - 1):
            assert isinstance(asking.ask(ASKED), Trouble)
        with pytest.raises(EndpointError, match="5 prompts in a row") as caught:
            asking.ask(ASKED)
    assert "a web page" in str(caught.value)


def test_prompts_that_are_too_long_end_nothing_once_one_was_answered():
    def answer(_: dict[str, Any], number: int) -> Reply:
        return GOOD if number == 0 else refused(400, "too long")

    with fake_endpoint(answer) as fake:
        asking = client(fake.url)
        outcomes = [asking.ask(ASKED) for _ in range(MOST_FAILURES + 3)]
    assert [isinstance(outcome, Trouble) for outcome in outcomes] == [False] + [True] * (MOST_FAILURES + 2)
    with fake_endpoint(lambda _, __: refused(400, "no such field")) as fake:
        asking = client(fake.url)
        for _ in range(MOST_FAILURES - 1):
            asking.ask(ASKED)
        with pytest.raises(EndpointError, match="no such field"):
            asking.ask(ASKED)


@pytest.mark.parametrize(
    ("url", "key", "shown"),
    [
        ("http://a.example/v1", "k", True),
        ("http://a.example/v1", None, False),
        ("https://a.example/v1", "k", False),
        ("http://127.0.0.1:1/v1", "k", False),
    ],
)
def test_a_key_that_goes_unencrypted_to_another_machine_is_known(url: str, key: str | None, shown: bool):
    assert shows_key(Endpoint(endpoint_url(url), "m", key)) is shown


def test_fields_that_an_endpoint_refuses_are_put_otherwise_for_good():
    def answer(body: dict[str, Any], _: int) -> Reply:
        if "max_tokens" in body:
            return refused(400, "'max_tokens' is not supported, use 'max_completion_tokens'")
        if "temperature" in body:
            return refused(400, "'temperature' does not support 0")
        return GOOD

    notes: list[str] = []
    with fake_endpoint(answer) as fake:
        asking = client(fake.url, log=notes.append)
        assert isinstance(asking.ask(ASKED), Answer)
        assert isinstance(asking.ask(ASKED), Answer)
        assert len(fake.requests) == 4
        assert fake.bodies[-1] == {"model": "m", "messages": ASKED, "max_completion_tokens": 512}
    assert len(notes) == 2


def test_requests_are_counted_with_their_repetitions():
    budget = Budget(max_requests=3)
    with fake_endpoint(lambda _, __: refused(500)) as fake:
        with pytest.raises(BudgetSpentError):
            client(fake.url, budget=budget, retries=9).ask(ASKED)
        assert len(fake.requests) == budget.requests == 3


def test_tokens_are_never_more_than_allowed():
    most = most_tokens(ASKED, 512)
    budget = Budget(max_tokens=most + 150)
    with fake_endpoint(lambda _, __: GOOD) as fake:
        asking = client(fake.url, budget=budget)
        asking.ask(ASKED)
        assert budget.tokens == 100
        asking.ask(ASKED)
        with pytest.raises(BudgetSpentError):
            asking.ask(ASKED)
        assert len(fake.requests) == 2
    assert budget.tokens == 200


def test_an_endpoint_that_counts_no_tokens_is_charged_the_most_there_can_be():
    budget = Budget()
    with fake_endpoint(lambda _, __: said("1", tokens=None)) as fake:
        client(fake.url, budget=budget).ask(ASKED)
    assert budget.tokens == most_tokens(ASKED, 512)


def test_a_stop_ends_a_wait():
    stop = threading.Event()
    with fake_endpoint(lambda _, __: refused(429, Retry_After="60")) as fake:
        asking = client(fake.url, stop=stop)
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(StoppedError):
            asking.ask(ASKED)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://a.example/v1/ ", "https://a.example/v1/chat/completions"),
        ("https://a.example/v1/chat/completions", "https://a.example/v1/chat/completions"),
        ("https://a.example/x?api-version=2", "https://a.example/x/chat/completions?api-version=2"),
        ("http://[::1]:80", "http://[::1]:80/chat/completions"),
    ],
)
def test_the_url_of_chat_completions(text: str, url: str):
    assert endpoint_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://a:b@c/v1", "http://a:99999/v1", "http://a b/v1",
     "http://[::1/v1", "http://a/\nv1", "http://a/é"],
)  # fmt: skip
def test_what_is_no_url_is_refused(text: str):
    with pytest.raises(ConfigError) as caught:
        endpoint_url(text)
    assert "a:b" not in str(caught.value)


def test_a_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE", " secret\n")
    assert key_from_environment("JUDGE") == "secret"
    assert key_from_environment(None) is None
    assert "secret" not in repr(Endpoint("u", "m", "secret"))
    for value in ("", "se\ncret", "schlüssel"):
        monkeypatch.setenv("JUDGE", value)
        with pytest.raises(ConfigError) as caught:
            key_from_environment("JUDGE")
        assert "se\ncret" not in str(caught.value)
