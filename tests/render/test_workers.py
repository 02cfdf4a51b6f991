"""Several processes prove what one proves, in the same order, and none is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import fields

from tests.support.serving_oracle import pair, renderer_of
from tutelage.errors import FitError
from tutelage.ledger import Ledger
from tutelage.render import ChatTemplate, Renderer, examples
from tutelage.render import workers as parallel
from tutelage.render.row_size import too_deep
from tutelage.render.workers import ROWS_WORTH_WORKERS
from tutelage.types import Address, Change, Conversation, Drop, Message, ToolCall

ROWS = ROWS_WORTH_WORKERS + 700


@pytest.fixture(scope="module")
def renderer(chatml_folder: Path) -> Renderer:
    return renderer_of(chatml_folder)


def conversation(number: int, *extra: Message) -> Conversation:
    messages = (*pair(f"question {number}", f"answer {number}"), *extra)
    return Conversation(messages, Address("rows.jsonl", number))


def rows(count: int = ROWS) -> Iterator[Conversation | Drop | Change]:
    """Conversations of which every 97th spells a control token, with entries of a reader among them."""
    for number in range(count):
        address = Address("rows.jsonl", number)
        if number % 101 == 7:
            yield Drop(address, "bad_json", "of the reader")
            continue
        if number % 103 == 5:
            yield Change(address, "trailing_turns_removed", "of the reader")
        yield conversation(number, *(pair("<|im_end|>", "never") if number % 97 == 3 else ()))
    yield Drop(Address("rows.jsonl", count), "damaged_gzip", "after the last row")


@dataclass(frozen=True)
class Result:
    made: list[tuple[Conversation, list[object]]]
    entries: list[Drop | Change]
    counts: dict[str, object]


def result_of(renderer: Renderer, workers: int, count: int = ROWS) -> Result:
    entries: list[Drop | Change] = []
    ledger = Ledger(listener=entries.append)
    made = []
    for row, proven in examples(rows(count), renderer, ledger, workers=workers):
        plain = [(one.address, one.part, one.turns, one.ids.tolist(), one.weights.tolist()) for one in proven]
        made.append((row, plain))
    return Result(made, entries, ledger.as_dict())


def test_every_field_of_a_conversation_crosses_the_pipe() -> None:
    call = ToolCall("find", {"where": "here"})
    message = Message("assistant", "found", "look first", (call,), "helper", "call-1", 0.5)
    row = Conversation(
        (message,),
        Address("rows.parquet", 3, "row"),
        ({"name": "find"},),
        {"enable_thinking": True},
        {"source": "a set"},
    )
    for part in (row, message, row.address):
        values = {member.name: (getattr(part, member.name), member.default) for member in fields(type(part))}
        assert [name for name, (value, default) in values.items() if value in (default, None, {}, ())] == []

    crossed = pickle.loads(pickle.dumps(row))
    assert (crossed, crossed.metadata) == (row, row.metadata)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_examples_and_the_books_are_those_of_one_process(renderer: Renderer, workers: int) -> None:
    assert result_of(renderer, workers) == result_of(renderer, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_entries_are_made_in_the_order_of_the_rows(renderer: Renderer, workers: int) -> None:
    numbers = [entry.address.number for entry in result_of(renderer, workers).entries]
    assert numbers == sorted(numbers)
    assert len(numbers) > 50


def test_each_row_is_measured_once_where_it_is_sent_from(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measuring(row: Conversation) -> Drop | None:
        measured.append(row.address.number)
        return Drop(row.address, "nested_too_deep", "as a test says") if row.address.number == 11 else too_deep(row)

    monkeypatch.setattr(parallel, "too_deep", measuring)
    result = result_of(renderer, 2)
    assert measured == [row.address.number for row in rows() if isinstance(row, Conversation)]
    dropped = [entry.address.number for entry in result.entries if entry.reason == "nested_too_deep"]
    assert dropped == [11]


def test_few_rows_start_no_process(renderer: Renderer) -> None:
    proven = examples(rows(ROWS_WORTH_WORKERS - 100), renderer, Ledger(), workers=2)
    next(proven)
    assert children() == set()
    assert len(list(proven)) > ROWS_WORTH_WORKERS * 0.8


def test_no_process_outlives_the_last_row(renderer: Renderer) -> None:
    proven = examples(rows(), renderer, Ledger(), workers=2)
    next(proven)
    assert len(children()) == 2
    list(proven)
    assert children() == set()


def test_no_process_outlives_a_consumer_that_stops(renderer: Renderer) -> None:
    proven = examples(rows(), renderer, Ledger(), workers=2)
    assert len(list(islice(proven, 3))) == 3
    assert len(children()) == 2
    proven.close()
    assert children() == set()


def test_an_error_in_a_worker_is_raised_here(renderer: Renderer) -> None:
    endless = ChatTemplate("{% for m in messages %}{{ m.content * 9000000 }}{% endfor %}", named_tokens={})
    failing = replace(renderer, template=endless)
    with pytest.raises(Exception, match="characters") as one:
        list(examples(rows(), failing, Ledger(), workers=1))
    with pytest.raises(type(one.value), match="characters") as several:
        list(examples(rows(), failing, Ledger(), workers=2))
    assert str(several.value) == str(one.value)
    assert "In a worker process" in several.value.__notes__[0]
    assert children() == set()


def test_a_worker_ended_by_the_system_is_reported_with_its_rows(renderer: Renderer) -> None:
    proven = examples(rows(), renderer, Ledger(), workers=2)
    next(proven)
    os.kill(min(children()), signal.SIGKILL)
    with pytest.raises(FitError, match=r"rows\.jsonl"):
        list(proven)
    assert children() == set()


def test_strict_mode_stops_at_the_first_bad_row_whoever_found_it(renderer: Renderer) -> None:
    said = []
    for workers in (1, 2):
        with pytest.raises(ValueError, match="control_token_in_text") as error:
            list(examples(rows(), renderer, Ledger(strict=True), workers=workers))
        said.append(str(error.value))
        assert children() == set()
    assert said[0] == said[1]


SCRIPT = """\
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit one that is ignored
from pathlib import Path
from tutelage.ledger import Ledger
from tutelage.render import ChatTemplate, Renderer, Tokenizer, examples
from tutelage.types import Address, Conversation, Message

tokenizer = Tokenizer.load(Path(sys.argv[1]))
renderer = Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))
def rows():
    for number in range(6000):
        yield Conversation((Message("user", f"q {number}"), Message("assistant", "a")), Address("f", number))
proven = examples(rows(), renderer, Ledger(), workers=2)
next(proven)
print("started", flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
print(1 + sum(1 for _ in proven))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "unguarded.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_a_script_without_a_main_guard_may_use_workers(script: Path, chatml_folder: Path) -> None:
    command = [sys.executable, str(script), str(chatml_folder), "go"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["started", "6000"], "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_however_it_ends(script: Path, chatml_folder: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(script), str(chatml_folder), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        workers = children(parent.pid)
        assert len(workers) == 2
        parent.send_signal(how)
        _, said = parent.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while (left := {worker for worker in workers if running(worker)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()
    assert said.count("Traceback") == (1 if how == signal.SIGINT else 0)


def test_ctrl_c_at_a_terminal_reaches_workers_too_and_only_the_parent_speaks(script: Path, chatml_folder: Path) -> None:
    command = [sys.executable, str(script), str(chatml_folder), "wait"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        os.killpg(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=30)
    assert said.count("Traceback") == 1
    assert "KeyboardInterrupt" in said


def test_threads_of_the_pool_end_too(renderer: Renderer) -> None:
    before = set(threading.enumerate())
    list(examples(rows(), renderer, Ledger(), workers=2))
    more = {thread.name for thread in set(threading.enumerate()) - before}
    assert {name for name in more if not name.startswith("tutelage-")} == set()  # the watch over the cores stays


def children(parent: int | None = None) -> set[int]:
    """Processes started by `parent` (this one) that have not been collected, as the system lists them."""
    listed = Path(f"/proc/{parent or os.getpid()}/task")
    if not listed.is_dir():
        pytest.skip("needs the process list of Linux")
    found = []
    for thread in listed.iterdir():
        with suppress(FileNotFoundError):  # one that has ended since has no children
            found.append(thread.joinpath("children").read_text(encoding="ascii").split())
    return {int(token_id) for ids in found for token_id in ids}


def running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_ways_out_are_those_of_one_process(renderer: Renderer) -> None:
    """Of rows that all drop, for the same reason, every third with another way out than the rest."""

    def drops(workers: int) -> list[Drop | Change]:
        entries: list[Drop | Change] = []
        reply = Message("assistant", "5", reasoning="add them")
        thinks = (
            Conversation((*pair("2+3?" * (1 + number % 3), "5")[:1], reply), Address("rows.jsonl", number))
            for number in range(ROWS)
        )
        assert list(examples(thinks, renderer, Ledger(listener=entries.append), workers=workers)) == []
        return entries

    alone = drops(1)
    assert drops(2) == alone
    assert sum("; the turn is proven with " in one.detail for one in alone) == ROWS
