"""Both generators with published seeds and an endpoint that answers, fails, stalls, limits and talks nonsense."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_endpoint import Reply, fake_endpoint, refused, said
from tests.synthesize.replies import good_reply
from tutelage.errors import ConfigError, DataError, EndpointError, SourceNotFoundError
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.synthesize.alpaca import Alpaca
from tutelage.synthesize.endpoint import EndpointGenerator
from tutelage.synthesize.output import DROPPED, REPLIES, REPORT, ROWS, Output
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.seeds import Seed, read_seeds
from tutelage.synthesize.self_instruct import SelfInstruct
from tutelage.synthesize.synthesis import Made, opening_word, synthesize_rows
from tutelage.system.chat_client import Budget
from tutelage.system.chat_endpoint import Endpoint

PUBLISHED = Path(__file__).parents[3] / "shared/material/data/selfinstruct_seed_tasks.jsonl"
METHODS = {"alpaca": Alpaca, "self_instruct": SelfInstruct}
SEEDS = [
    Seed(f"Do the {name} thing with what is given.", f"given {name}", f"done {name}", is_classification=place % 2 == 0)
    for place, name in enumerate(["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"])
]


def make(
    folder: Path,
    url: str,
    method: str = "alpaca",
    *,
    rows: int = 30,
    seeds: list[Seed] = SEEDS,
    budget: Budget | None = None,
    timeout: float = 30.0,
) -> Made:
    """One command."""
    endpoint = Endpoint(f"{url}/chat/completions", "m", timeout_seconds=timeout)
    generator = EndpointGenerator(endpoint, budget or Budget(), first_wait_seconds=0.01)
    output = Output(folder, {"method": method, "model": "m"})
    book = ReplyBook(folder / REPLIES, generator)
    return synthesize_rows(METHODS[method](seeds, book, output), book, output, rows=rows)


def well(body: dict[str, Any], _number: int) -> Reply:
    return said(good_reply(body))


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (ROWS, DROPPED, REPORT)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published seed tasks are not here")
def test_rows_of_the_published_seeds_are_read_by_our_reader(method: str, tmp_path: Path) -> None:
    seeds = read_seeds(PUBLISHED)
    assert len(seeds) == 175
    assert sum(seed.is_classification is True for seed in seeds) > 20
    with fake_endpoint(well) as endpoint:
        made = make(tmp_path / "out", endpoint.url, method, rows=60, seeds=seeds)
    ledger = Ledger()
    rows = list(read([str(tmp_path / "out" / ROWS)], ledger=ledger))
    assert made.ended is None
    assert made.report["rows"] == len(rows) >= 60
    assert not ledger.dropped
    assert rows[0].metadata["source"] == method
    assert made.report["tokens"] == 100 * len(endpoint.requests)
    assert made.report["ledger"]["rows_in"] == len(rows) + made.report["ledger"]["rows_dropped"]


def test_alpaca_shows_three_seeds_and_asks_for_twenty_whole_tasks(tmp_path: Path) -> None:
    with fake_endpoint(well) as endpoint:
        make(tmp_path, endpoint.url)
    body = endpoint.bodies[0]
    prompt = body["messages"][0]["content"]
    assert (body["temperature"], body["max_tokens"]) == (1.0, 3072)
    assert "top_p" not in body
    assert "stop" not in body
    assert sum(seed.instruction in prompt for seed in SEEDS) == 3
    assert "with the numbers 1 to 20" in prompt


def test_self_instruct_shows_two_of_its_own_once_it_has_some_and_writes_labels_first(tmp_path: Path) -> None:
    with fake_endpoint(well) as endpoint:
        make(tmp_path, endpoint.url, "self_instruct", rows=129)
    asked = [body for body in endpoint.bodies if "Go on with" in body["messages"][0]["content"]]
    shown = [re.findall(r"Instruction: (.*)\n", body["messages"][0]["content"]) for body in asked]
    seeds = {seed.instruction for seed in SEEDS}
    assert {(body["temperature"], body["top_p"], body["presence_penalty"]) for body in asked} == {(0.7, 0.5, 2.0)}
    assert [sum(one in seeds for one in examples) for examples in shown[:8]] == [8] * 8
    assert [(len(examples), sum(one in seeds for one in examples)) for examples in shown[8:10]] == [(8, 6)] * 2
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    labelled = [row for row in rows if row["is_classification"]]
    assert labelled
    assert all(row["input"].startswith("input") and row["output"].startswith("output") for row in rows)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_command_again_asks_nothing_and_writes_the_same_bytes(method: str, tmp_path: Path) -> None:
    with fake_endpoint(well) as endpoint:
        make(tmp_path, endpoint.url, method)
        before, asked = all_bytes(tmp_path), len(endpoint.requests)
        (tmp_path / ROWS).write_bytes(before[ROWS][:-40])  # as a killed process leaves it
        make(tmp_path, endpoint.url, method)
        assert len(endpoint.requests) == asked
    assert all_bytes(tmp_path) == before


@pytest.mark.parametrize("method", METHODS)
def test_what_was_paid_before_an_end_is_kept_and_the_rest_is_made_as_without_it(method: str, tmp_path: Path) -> None:
    with fake_endpoint(well) as endpoint:
        make(tmp_path / "whole", endpoint.url, method)
        asked = len(endpoint.requests)
        made = make(tmp_path / "parts", endpoint.url, method, budget=Budget(max_requests=5))
        assert made.ended == "the budget is spent: --max-requests 5"
        make(tmp_path / "parts", endpoint.url, method)
        assert len(endpoint.requests) == 2 * asked
    assert all_bytes(tmp_path / "parts") == all_bytes(tmp_path / "whole")


def test_limits_stalls_and_cut_connections_are_waited_out(tmp_path: Path) -> None:
    troubles = {0: refused(429, Retry_After="0"), 2: Reply(stall=2.0, announced=10), 3: Reply(cut_connection=True)}
    troubles |= {5: refused(503), 6: Reply(body=b"<html>")}

    def answer(body: dict[str, Any], number: int) -> Reply:
        return troubles.get(number) or well(body, number)

    with fake_endpoint(answer) as endpoint:
        made = make(tmp_path / "troubled", endpoint.url, timeout=0.5)
        make(tmp_path / "calm", endpoint.url)
    assert made.ended is None
    assert all_bytes(tmp_path / "troubled") == all_bytes(tmp_path / "calm")


def test_an_endpoint_that_dies_ends_the_work_and_what_it_said_is_kept(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        return well(body, number) if number < 8 else refused(401, "key expired")

    with fake_endpoint(answer) as endpoint, pytest.raises(EndpointError, match="the same command goes on"):
        make(tmp_path, endpoint.url, rows=400)
    rows = (tmp_path / ROWS).read_bytes()
    assert rows.count(b"\n") > 50
    with fake_endpoint(well) as endpoint:
        make(tmp_path, endpoint.url, rows=400)
    assert (tmp_path / ROWS).read_bytes().startswith(rows)


@pytest.mark.parametrize("method", METHODS)
def test_garbage_is_counted_and_never_a_row(method: str, tmp_path: Path) -> None:
    garbage = [
        "",
        "I cannot do that.",
        "1. Instruction: a\n###",
        "1. Output: x\n###",
        "{}",
        "9. Instruction: cut off he",
    ]
    with fake_endpoint(lambda _body, number: said(garbage[number % len(garbage)])) as endpoint:
        made = make(tmp_path, endpoint.url, method)
    assert made.ended == "5 rounds in a row brought no row"
    assert (tmp_path / ROWS).read_bytes() == b""
    assert set(made.report["ledger"]["dropped"]) <= {"no_item", "no_end_mark", "wrong_parts", "wrong_number",
                                                     "instruction_too_short"}  # fmt: skip
    assert (tmp_path / DROPPED).read_text().count("\n") == made.report["ledger"]["rows_dropped"] >= 40


def test_copies_of_seeds_and_of_each_other_are_not_new(tmp_path: Path) -> None:
    def answer(_body: dict[str, Any], _number: int) -> Reply:
        texts = [SEEDS[0].instruction, "Sort these five numbers by size.", "Sort these five numbers by their size."]
        return said("".join(f"{place}. Instruction: {text}\n{place}. Input: <none>\n{place}. Output: x\n###\n"
                            for place, text in enumerate(texts, start=1)))  # fmt: skip

    with fake_endpoint(answer) as endpoint:
        made = make(tmp_path, endpoint.url)
    assert made.report["rows"] == 1
    assert set(made.report["ledger"]["dropped"]) == {"not_new"}
    assert "ROUGE-L 1.00" in made.report["ledger"]["samples"]["not_new"][0]["detail"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="something else"):
        Output(tmp_path, {"method": "alpaca"})
    Output(tmp_path / "out", {"method": "alpaca"})
    with pytest.raises(ConfigError, match="method was alpaca, and is self_instruct"):
        Output(tmp_path / "out", {"method": "self_instruct"})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "Expecting"),
        ("[]", "a list"),
        ('{"instruction": "Do it now.", "instances": []}', "instances that are no list"),
        ('{"instruction": "Do it now.", "instances": [{"input": "a"}]}', "no text in output"),
        ('{"instruction": "?!", "output": "a"}', "without a word"),
        ('{"instruction": "Do it now.", "output": "a", "is_classification": "no"}', "neither true nor false"),
    ],
)
def test_damaged_seeds_are_named_by_line(line: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "Do it now.", "input": "", "output": "Done."}\n' + line)
    with pytest.raises(DataError, match=rf"seeds.jsonl:2[\s\S]*{re.escape(found)}"):
        read_seeds(path)


def test_no_seeds_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_seeds(tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no seed task"):
        read_seeds(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    ("instruction", "word"),
    [
        ("Write a poem.", "write"),
        ("Please, list five fruits.", "list"),
        ("Can you explain gravity?", "explain"),
        ("“Translate” this.", "translate"),
        ("What is this?", "what"),
        ("写诗", "写诗"),
        ("12", ""),
    ],
)
def test_the_opening_word(instruction: str, word: str) -> None:
    assert opening_word(instruction) == word
