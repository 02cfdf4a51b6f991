"""Verbs and objects of instructions by rule, and the page that draws them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from tutelage.report.html.synthesis_page import render_synthesis
from tutelage.synthesize.root_verbs import RootVerb, commonest, root_verb


@pytest.mark.parametrize(
    ("instruction", "verb", "head"),
    [
        ("Write a short story about a ship.", "write", "story"),
        ("Please list five ways to save water.", "list", "way"),
        ("Could you give me some examples of irony?", "give", "example"),
        ("Given a sentence, translate the given text into French.", "translate", "text"),
        ("You need to write a creative opening scene for a film.", "write", "scene"),
        ("In this task, you have to sort the two numbers.", "sort", "number"),
        ("Quickly identify the bias in it.", "identify", "bias"),
        ("Name the process associated with rain.", "name", "process"),
        ("Write a letter describing the house.", "write", "letter"),
        ("Solve it.", "solve", ""),
        ("Tell me whether this is so.", "tell", ""),
        ("Translate 'good day' into German.", "translate", "day"),
    ],
)
def test_the_verb_and_what_it_is_done_to(instruction: str, verb: str, head: str) -> None:
    assert root_verb(instruction) == RootVerb(verb, head)


@pytest.mark.parametrize(
    "text", ["", "?!", "What is a verb?", "The sky is blue.", "Schreib einen Brief.", "写一首诗。"]
)
def test_a_question_a_statement_and_another_language_have_none(text: str) -> None:
    assert root_verb(text) is None


def test_the_commonest_verbs_with_their_commonest_objects() -> None:
    pairs = [RootVerb("write", "poem")] * 3 + [RootVerb("write", "story")] * 2 + [RootVerb("write", "")] * 9
    pairs += [RootVerb("list", noun) for noun in ("way", "sea", "tool", "town", "bird")]
    assert [asdict(share) for share in commonest(pairs, objects=4)] == [
        {"verb": "list", "rows": 5, "objects": (("bird", 1), ("sea", 1), ("tool", 1), ("town", 1))},
        {"verb": "write", "rows": 5, "objects": (("poem", 3), ("story", 2))},
    ]
    assert [share.verb for share in commonest(pairs, verbs=1)] == ["list"]


def report(**changed: Any) -> dict[str, Any]:
    shares = [asdict(share) for share in commonest([RootVerb("write", "poem"), RootVerb("write", "</script>")])]
    ledger = {
        "rows_in": 4,
        "dropped": {"not_new": 2},
        "samples": {"not_new": [{"address": "a:1", "detail": "<b>x</b>"}]},
    }
    facts = {"method": "alpaca", "model": "m", "rows": 2, "requests": 1, "tokens": 100, "rows_per_1000_tokens": 20.0}
    facts |= {"root_verbs": json.loads(json.dumps(shares)), "rows_with_verb_and_object": 2, "ledger": ledger}
    return facts | changed


def test_the_page_has_the_reasons_and_the_verbs_and_nothing_of_a_row_ends_its_script() -> None:
    page = render_synthesis(report())
    assert "<td>&lt;/script&gt; 1, poem 1</td>" in page
    assert "50.0" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    data = page.partition('id="verbs-data">')[2].partition("</script>")[0]
    assert json.loads(data)[0]["verb"] == "write"


def test_the_page_of_nothing_says_so() -> None:
    page = render_synthesis(report(root_verbs=[], rows=0, ledger={"rows_in": 0, "dropped": {}, "samples": {}}))
    assert "No instruction has a verb" in page
    assert "Bokeh" not in page.partition("<script>")[0]
