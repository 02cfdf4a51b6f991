from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.annotation import workspace
from tutelage.annotate.consistency import consistency_of, notes_on
from tutelage.annotate.workspace import Workspace
from tutelage.words import rouge_l


def test_rouge_l_worked_out_by_hand():
    # Common in order: "the cat the" or "the sat the": 3 of 4 and of 5 words.
    assert rouge_l("the cat sat down", "The cat, then: sat.") == pytest.approx(2 * 3 / (4 + 4))
    assert rouge_l("", "") == rouge_l("", "a") == 0
    assert rouge_l("猫が好き", "猫が好き") == 1


def submit(space: Workspace, person: str, number: int, text: str) -> None:
    space.submit(person, space.prompts[number], page="p", text=text, after=None, began="", seconds=1.0)


def test_likeness_stands_beside_what_chance_gives_and_decisions_have_an_alpha(tmp_path: Path):
    space = workspace(tmp_path, overlap=2)
    for person, other in (("anna", "soon"), ("ben", "later")):
        submit(space, person, 0, f"the sun is warm {other}")
        submit(space, person, 1, f"boats float on water {other}")
    space.leave("anna", space.prompts[2], "flag", "rude")
    space.leave("ben", space.prompts[2], "skip", "")
    found = consistency_of(workspace(tmp_path))
    assert (found.prompts, found.decided, found.written) == (3, pytest.approx(2 / 3), 2)
    # Ordered pairs: submit-submit 4, flag-skip 1, skip-flag 1; n 4, 1, 1; expected 2 * (4 + 4 + 1) = 18.
    assert found.decided_alpha == pytest.approx(1 - 5 * 2 / 18)
    assert found.likeness == pytest.approx(0.8)
    assert found.likeness_by_chance == 0
    text = " ".join(notes_on(found))
    assert "0.80, of texts of different prompts 0.00" in text
    assert "67%" in text
    assert "rating" not in text


def test_ratings_of_several_people_have_an_ordinal_alpha(tmp_path: Path):
    space = workspace(tmp_path)
    submit(space, "anna", 0, "a")
    submit(space, "anna", 1, "b")
    for person, scores in (("ben", (6, 2)), ("eva", (7, 1)), ("max", (6, 2))):
        for prompt, score in zip(space.prompts, scores, strict=False):
            space.rate(person, prompt, "anna", 1, score)
    found = consistency_of(workspace(tmp_path))
    assert (found.rated, found.mean_rating) == (2, 4)
    # By hand: squares 2.25 (1, 2), 2.25 (6, 7), 12.25 (1, 6), 25 (1, 7), 4 (2, 6), 12.25 (2, 7).
    assert found.rated_alpha == pytest.approx(1 - 5 * (4 * 2.25) / (9 + 9 + 49 + 50 + 32 + 49))
    assert "Mean rating 4.0; 2 texts were rated by more than one person" in " ".join(notes_on(found))


def test_nothing_is_said_of_what_nobody_said_twice(tmp_path: Path):
    space = workspace(tmp_path)
    submit(space, "anna", 0, "a")
    assert notes_on(consistency_of(space)) == []
