"""Requests as the server describes them, and some that it does not allow: each gets an answer, and none is a fault."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serve.conftest import NAME
from tests.support.served import Running

FEW, MANY = 6, 400
"""Requests for each path, in `make test` and in `make nightly`."""


def fuzz(server: Running, examples: int) -> Counter[int]:
    """Ask so many made-up requests of each path; which status came how often."""
    schemathesis = pytest.importorskip("schemathesis", reason="it makes the requests")
    root = server.url.removesuffix("/v1")
    schema = schemathesis.openapi.from_url(f"{root}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=found.ok().as_strategy())
        def ask(case: Any) -> None:
            if isinstance(case.body, dict):  # a request that only names another model ends at the name
                case.body |= {"model": NAME, "max_tokens": 2}
            response = case.call()
            statuses[response.status_code] += 1
            assert response.status_code < 500, f"{case.method} {case.path} {case.body!r}: {response.text[:500]}"
            if response.status_code >= 400:
                assert response.json()["error"]["message"]

        ask()
    return statuses


def answers_still(server: Running) -> bool:
    reply = server.client().completions.create(model=NAME, prompt="Hello", max_tokens=2, temperature=0)
    return reply.usage.completion_tokens in (1, 2)


def test_made_up_requests_get_an_answer(server: Running) -> None:
    statuses = fuzz(server, FEW)

    assert statuses[200] > 0
    assert answers_still(server)


@pytest.mark.nightly
def test_many_made_up_requests_get_an_answer(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    statuses = fuzz(server, MANY)

    with capsys.disabled():
        sys.stdout.write(f"\n{sum(statuses.values())} requests: {dict(sorted(statuses.items()))}\n")
    assert sum(statuses.values()) > MANY
    assert answers_still(server)
