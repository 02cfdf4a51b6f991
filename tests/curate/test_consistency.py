"""What is told of style, source by source, and of prompts with contradictory answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.curation import CurateSettings
from tutelage.config.curation_consistency import ConsistencySettings
from tutelage.curate.consistency import Consistency, final_answer
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.curate.step import CorpusStep


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("First 2 + 2.\n#### 4", "4"),
        ("So the answer is $1,200.00.", "1200"),
        (r"Hence \boxed{x+1}.", "x+1"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("Paris.", "paris"),
        ("**Yes**", "yes"),
        ("#### 15 gallons * 8 pints / gallon = 120 pints", "120"),
        ("The final answer is: therefore 3.", "3"),
        ("The answer is 3 or 4.", "3 or 4"),
        ("A horse eats hay", None),
        ("A longer reply, in which nothing is marked as the answer to what was asked of it.", None),
        ("", None),
    ],
)
def test_what_a_reply_says_in_the_end(reply: str, answer: str | None) -> None:
    assert final_answer(reply) == answer


LIST = "- the first thing\n- the second thing\n- **the third one**"


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"prompt": prompt, "completion": reply}) + "\n" for prompt, reply in rows), encoding="utf-8"
    )
    return path


def report_of(tmp_path: Path, files: list[Path], **settings: Any) -> dict[str, Any]:
    """The report of a curation by this step alone."""
    step = Consistency(ConsistencySettings(**settings))
    assert isinstance(step, CorpusStep)
    out = tmp_path / "out"
    curate(CurationRequest(tuple(map(str, files)), out, CurateSettings(), workers=1, chunk_rows=50), steps=(step,))
    report: dict[str, Any] = json.loads((out / "consistency.json").read_text())
    return report


def test_shares_and_lengths_by_source_and_sources_that_differ(tmp_path: Path) -> None:
    plain = write(
        tmp_path / "plain.jsonl", [(f"q{n}", f"The answer to {n} is a sentence of words.") for n in range(60)]
    )
    lists = write(tmp_path / "lists.jsonl", [(f"r{n}", LIST) for n in range(60)])
    few = write(tmp_path / "few.jsonl", [("s", "```\nx\n```")])
    report = report_of(tmp_path, [plain, lists, few])
    shares = {name: facts["shares"] for name, facts in report["sources"].items()}
    assert shares[str(plain)]["full_stop"] == 1.0
    assert shares[str(plain)]["list"] == 0.0
    assert shares[str(lists)]["list"] == shares[str(lists)]["markdown"] == 1.0
    assert shares[str(few)]["code_fence"] == 1.0
    assert report["sources"][str(lists)]["characters"]["50"] == len(LIST)
    differing = {of_mark["mark"]: of_mark["shares"] for of_mark in report["differing"]}
    assert differing["list"] == {str(lists): 1.0, str(plain): 0.0}
    assert list(differing["full_stop"].items()) == [(str(plain), 1.0), (str(lists), 0.0)]
    assert all(str(few) not in shares for shares in differing.values())
    card = (tmp_path / "out/card.md").read_text()
    assert f"replies differ in list: 100% of {lists}, 0% of {plain}" in card


def test_how_labels_begin_and_end_is_no_style(tmp_path: Path) -> None:
    text = "The answer to it is a sentence of many words."
    plain = write(tmp_path / "plain.jsonl", [(f"q{n}", text) for n in range(60)])
    labels = write(tmp_path / "labels.jsonl", [(f"r{n}", "world") for n in range(60)])
    report = report_of(tmp_path, [plain, labels])
    assert report["sources"][str(labels)]["shares"]["full_stop"] is None
    assert report["differing"] == []


def test_sources_that_contradict_each_other(tmp_path: Path) -> None:
    prompts = [f"What is {n} and {n}?" for n in range(40)]
    one = write(tmp_path / "one.jsonl", [(prompt, f"Add.\n#### {2 * n}") for n, prompt in enumerate(prompts)])
    same = write(tmp_path / "same.jsonl", [(prompt, f"The answer is {2 * n}.") for n, prompt in enumerate(prompts)])
    other = write(tmp_path / "other.jsonl", [(prompt, f"The answer is {3 * n}.") for n, prompt in enumerate(prompts)])
    found = report_of(tmp_path, [one, same, other])["contradictions"]
    assert (found["prompts"], found["rows"]) == (39, 117)  # twice nothing is three times nothing
    assert found["between"] == [
        {"sources": [str(one), str(other)], "prompts": 39},
        {"sources": [str(same), str(other)], "prompts": 39},
    ]
    card = (tmp_path / "out/card.md").read_text()
    assert "39 prompts have contradictory answers, in 117 rows" in card
    assert f"contradictory answers between {one} and {other}: 39 prompts" in card


CONTRADICTORY = [
    ("What is 2 + 2?", "Two and two.\n#### 4"),
    ("what is 2 + 2", "The answer is 5."),
    ("Name a city.", "Rome is a fine city, with a long history and many old buildings in it."),
    ("Name a city.", "Paris is another one, and it lies on the river Seine in the north of France."),
    ("Is it so?", "Yes"),
    ("Is it so?", "yes."),
    ("Give the record.", '{"a": 1}'),
    ("Give the record.", "The record says that a is one, and nothing else is known about it."),
]


def test_the_same_prompt_with_different_answers_or_forms(tmp_path: Path) -> None:
    report = report_of(tmp_path, [write(tmp_path / "a.jsonl", CONTRADICTORY)])
    found = report["contradictions"]
    assert (found["prompts"], found["rows"]) == (2, 4)
    assert [sample["prompt"] for sample in found["samples"]] == ["What is 2 + 2?", "Give the record."]
    assert [row["answer"] for row in found["samples"][0]["rows"]] == ["4", "5"]
    assert found["samples"][0]["rows"][1]["address"].endswith("a.jsonl:2")
    assert len((tmp_path / "out/data.jsonl").read_text().splitlines()) == len(CONTRADICTORY)


def test_they_are_dropped_if_asked_and_good_alternatives_stay(tmp_path: Path) -> None:
    report_of(tmp_path, [write(tmp_path / "a.jsonl", CONTRADICTORY)], contradictions="drop")
    dropped = [json.loads(line) for line in (tmp_path / "out/ledger.jsonl").read_text().splitlines()]
    assert len(dropped) == 4
    assert {entry.get("dropped") for entry in dropped} == {"contradicts"}
    assert any("'4', not '5' as in" in json.dumps(entry) for entry in dropped)
    kept = (tmp_path / "out/data.jsonl").read_text()
    assert "Rome" in kept
    assert "Paris" in kept
    assert "yes." in kept


def test_an_answer_behind_four_signs_is_no_heading(tmp_path: Path) -> None:
    rows = [(f"q{n}", f"Two and two.\n#### {n}") for n in range(4)] + [
        ("r", "#### Sums\nTwo and two make four, as ever.")
    ]
    report = report_of(tmp_path, [write(tmp_path / "a.jsonl", rows)])
    (facts,) = report["sources"].values()
    assert facts["shares"]["markdown"] == 0.2


def test_a_later_curation_without_the_step_leaves_no_old_report(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", CONTRADICTORY)
    report_of(tmp_path, [file])
    out = tmp_path / "out"
    curate(CurationRequest((str(file),), out, CurateSettings(), workers=1), steps=())
    assert not (out / "consistency.json").exists()
    assert "consistency.json" not in json.loads((out / "hashes.json").read_text())["files"]


def test_a_row_without_a_final_answer_goes_with_those_that_contradict(tmp_path: Path) -> None:
    rows = [("What is 2 + 2?", reply) for reply in ("#### 4", "#### 5", "Count on your fingers, first two, then two.")]
    report_of(tmp_path, [write(tmp_path / "a.jsonl", rows)], contradictions="drop")
    dropped = [json.loads(line) for line in (tmp_path / "out/ledger.jsonl").read_text().splitlines()]
    assert len(dropped) == 3
    path = tmp_path / "a.jsonl"
    assert dropped[2]["detail"] == f"no final answer, beside '4' in {path}:1 and '5' in {path}:2"


@pytest.mark.timeout(10)
def test_many_letters_behind_a_number_are_read_once() -> None:
    """A unit may have a space before it or not: tried in all ways, sixty letters would take longer than the world."""
    assert final_answer(f"#### 3 {'a' * 60}é") == f"3 {'a' * 60}é"
    assert final_answer("The answer is therefore 1,200 pints of milk.") == "1200"
