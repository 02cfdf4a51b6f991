from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran
from tests.support.compared_replies import write_rows
from tests.support.fake_endpoint import Reply, fake_endpoint, refused, said

Compare = Callable[..., Ran]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two files of replies, old.jsonl and new.jsonl, in the current folder; one prompt is in the second alone."""
    monkeypatch.chdir(tmp_path)
    for name, extra in (("old", 0), ("new", 1)):
        rows = [{"prompt": f"question {number}", "reply": f"{name} {number}"} for number in range(6 + extra)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    return "old.jsonl", "new.jsonl"


@pytest.fixture
def compare(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Runs `compare` with these keys in a pipe."""

    def go(*words: str, keys: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
        return run("compare", *words, model=None)

    return go


def test_rated_in_two_sittings_and_by_two_people(compare: Compare, files: tuple[str, str]):
    first = compare(*files, "--by", "terminal", "--rater", "anna", keys="12t")
    assert first.code == 0, first.err
    assert "question" in first.out
    assert "without a partner, of B: 1 (new.jsonl:7)" in first.err
    second = compare(*files, "--by", "terminal", "--rater", "anna", keys="1111111")
    assert second.code == 0
    assert "4 of 6" in second.out
    assert "3 of 6" not in second.out
    compare(*files, "--by", "terminal", "--rater", "ben", keys="t" * 6)
    done = compare(*files, "--json")
    result = json.loads(done.out)
    assert [(line["rater"], line["better_a"] + line["better_b"] + line["ties"]) for line in result["raters"]] == [
        ("people", 6),
        ("anna", 6),
        ("ben", 6),
    ]
    assert result["agreement"]["pairs"] == 6
    assert (result["alone_a"], result["alone_b"]) == (0, 1)


def test_results_are_the_default_without_a_terminal(compare: Compare, files: tuple[str, str]):
    done = compare(*files, keys="111111")
    assert done.code == 0
    assert "no verdict yet" in done.out
    compare(*files, "--by", "terminal", keys="111111")
    done = compare(*files)
    assert "A: old   B: new" in done.out
    assert "Mean length in characters: A 5, B 5." in done.out
    assert "comparisons/old-new/verdicts.jsonl" in done.out.replace("\n", "")


def test_a_dry_run_asks_nothing_and_writes_nothing(compare: Compare, files: tuple[str, str], tmp_path: Path):
    done = compare(*files, "--dry-run", "--limit", "4", "--by", "terminal", keys="1")
    assert done.code == 0
    assert "4 pairs" in done.out
    assert not (tmp_path / "comparisons").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("old.jsonl",), "nothing to be compared with"),
        (("old.jsonl", "new.jsonl", "--base"), "--base is for runs"),
        (("old.jsonl", "missing.jsonl"), "no such run and no such file"),
        (("old.jsonl", "prompts.jsonl"), "no reply"),
        (("old.jsonl", "others.jsonl"), "no prompt in common"),
        (("old.jsonl", "."), "is not a run"),
        (("old.jsonl", "new.jsonl", "--by", "terminal", "--rater", " "), "needs a name"),
        (("old.jsonl", "new.jsonl", "--limit", "0"), "--limit"),
        (("old.jsonl", "new.jsonl", "--by", "nobody"), "nobody"),
    ],
)
def test_bad_input_is_told(compare: Compare, files: tuple[str, str], tmp_path: Path, words: tuple[str, ...], said: str):
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "question 1"}])
    write_rows(tmp_path / "others.jsonl", [{"prompt": "something else", "reply": "x"}])
    done = compare(*words, keys="1")
    assert done.code in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err


def test_two_files_of_one_name_are_told_apart(compare: Compare, files: tuple[str, str], tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write_rows(tmp_path / "sub" / "old.jsonl", [{"prompt": "question 1", "reply": "x"}])
    done = compare("old.jsonl", "sub/old.jsonl", "--json")
    result = json.loads(done.out)
    assert (result["name_a"], result["name_b"]) == ("old.jsonl", "sub/old.jsonl")


def prefers_new(body: dict[str, Any], _: int) -> Reply:
    text = body["messages"][1]["content"]
    return said("1" if text.index("new ") < text.index("old ") else "2")


def by_judge(url: str, *more: str) -> tuple[str, ...]:
    return ("--by", "judge", "--endpoint", url, "--model", "m", *more)


def test_a_judge_is_asked_once_and_then_known(compare: Compare, files: tuple[str, str], monkeypatch: Any):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with fake_endpoint(prefers_new) as fake:
        plan = json.loads(compare(*files, *by_judge(fake.url, "--dry-run", "--json")).out)
        assert (plan["pairs"], plan["requests"], plan["known"]) == (6, 12, 0)
        assert plan["likely_tokens"] < plan["most_tokens"]
        assert fake.requests == []
        done = compare(*files, *by_judge(fake.url, "--key-env", "JUDGE_KEY"))
        assert done.code == 0, done.err
        assert "12 verdicts given now, 0 known before; 12 requests, 1,200 tokens" in done.err
        assert {headers["Authorization"] for _, headers, _ in fake.requests} == {"Bearer secret"}
        again = compare(*files, *by_judge(fake.url, "--json"))
        assert len(fake.requests) == 12
    line = json.loads(again.out)["raters"][0]
    assert (line["rater"], line["better_b"], line["consistency"]["same"]) == ("m", 6, 6)
    assert "judge m" in done.out
    assert "the same verdict in both orders in 6 of 6 pairs" in done.out
    assert "secret" not in done.out + done.err + Path("comparisons/old-new/verdicts.jsonl").read_text("utf-8")


def test_a_budget_leaves_a_part_and_says_so(compare: Compare, files: tuple[str, str]):
    with fake_endpoint(prefers_new) as fake:
        done = compare(*files, *by_judge(fake.url, "--max-requests", "4", "--parallel", "1"))
        assert done.code == 0
        assert len(fake.requests) == 4
    assert "the budget is spent: --max-requests 4" in done.err
    assert "judge m" in done.out


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (refused(401, "who are you"), 1, ["does not answer", "status 401: who are you", "--key-env NAME"]),
        (refused(404, "no model m"), 1, ["no model m", "/v1"]),
        (Reply(body=b"<html>a page</html>"), 1, ["5 prompts in a row", "HTML, not JSON: <html>a page</html>"]),
        (Reply(body=b'{"choices": [{"mes'), 1, ["no whole JSON"]),
        (refused(500, "oops"), 1, ["status 500: oops"]),
        (said("they are both fine"), 0, ["0 verdicts given now", "no verdict, 12 times: the answer holds no verdict"]),
    ],
)
def test_what_an_endpoint_can_do_is_told(
    compare: Compare, files: tuple[str, str], reply: Reply, code: int, words: list[str]
):
    with fake_endpoint(lambda _, __: reply) as fake:
        done = compare(*files, *by_judge(fake.url, "--retries", "0", "--timeout", "5"))
    assert done.code == code
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err


def test_nobody_at_home_is_told(compare: Compare, files: tuple[str, str]):
    done = compare(*files, *by_judge("http://127.0.0.1:9/v1"))
    assert done.code == 1
    assert "it cannot be reached: Connection refused" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "judge"), "--endpoint http://127.0.0.1:8000/v1 --model NAME"),
        (("--by", "judge", "--endpoint", "http://127.0.0.1:1/v1"), "no --model"),
        (("--by", "judge", "--endpoint", "127.0.0.1", "--model", "m"), "no URL that can be asked"),
        (by_judge("http://127.0.0.1:1", "--key-env", "TUTELAGE_NO_SUCH_VARIABLE"), "holds no key"),
        (("--endpoint", "http://127.0.0.1:1/v1"), "--endpoint is for a judge"),
        (by_judge("http://127.0.0.1:1", "--timeout", "0"), "--timeout"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_told_before_anything(
    compare: Compare, files: tuple[str, str], words: tuple[str, ...], said: str
):
    done = compare(*files, *words)
    assert done.code in (1, 2)
    assert said in done.err


def test_ctrl_c_keeps_what_was_answered(files: tuple[str, str], tmp_path: Path):
    def answer(body: dict[str, Any], number: int) -> Reply:
        return prefers_new(body, number) if number < 5 else replace(said("1"), stall=60.0)

    kept = tmp_path / "comparisons" / "old-new" / "verdicts.jsonl"
    with fake_endpoint(answer) as fake:
        # A shell's background jobs inherit an interrupt that is ignored.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        program = [sys.executable, "-c", heard + "from tutelage.__main__ import program; program()"]
        words = [*program, "compare", *files, *by_judge(fake.url, "--parallel", "2")]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ)
        while not kept.exists() or len(kept.read_bytes().splitlines()) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        told = process.stderr.read()
    assert "is kept in comparisons/old-new/verdicts.jsonl" in told
    assert "Traceback" not in told


def test_comparing_needs_no_torch():
    program = (
        "import sys; import tutelage.cli.compare, tutelage.builders.run_replies; "
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "set()"


def test_a_terminal_that_is_killed_has_lost_nothing(files: tuple[str, str], tmp_path: Path):
    """Keys of a real terminal, without Enter; then SIGKILL."""
    keyboard, terminal = pty.openpty()
    words = [sys.executable, "-m", "tutelage", "compare", *files, "--rater", "anna"]
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ)
    os.close(terminal)
    kept = tmp_path / "comparisons" / "old-new" / "verdicts.jsonl"
    try:
        for number in (1, 2, 3):
            _read_until(keyboard, f"{number} of 6")
            os.write(keyboard, b"1")
        _read_until(keyboard, "4 of 6")
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    assert len(kept.read_bytes().splitlines()) == 3


def _read_until(terminal: int, text: str) -> None:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(terminal, 65536)


def test_a_page_is_written_and_its_place_is_looked_at_first(compare: Compare, files: tuple[str, str], tmp_path: Path):
    done = compare(*files, "--by", "terminal", "--html", "page.html", keys="1")
    assert "Page: page.html" in done.out
    assert "anna" not in (page := (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "question" in page
    done = compare(*files, "--by", "terminal", "--rater", "anna", "--html", "old.jsonl", keys="1")
    assert done.code == 1
    assert "no page of ours" in done.err
    assert compare(*files, "--json").out.count('"rater"') == 1
