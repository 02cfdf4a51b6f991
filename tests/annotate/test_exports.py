from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.annotation import workspace
from tutelage import formats
from tutelage.annotate.exports import Form, write_export
from tutelage.annotate.rows import demonstration
from tutelage.annotate.workspace import Workspace
from tutelage.ledger import Ledger


@pytest.fixture
def written(tmp_path: Path) -> Workspace:
    """A text about each prompt: the second twice revised, the third made from the row's own reply."""
    space = workspace(tmp_path)
    for number, prompt in enumerate(space.prompts):
        began = "row" if prompt.reply is not None else ""
        for text in ("first try", "better")[: 2 if number == 1 else 1]:
            space.submit("anna", prompt, page="p", text=text, after=None, began=began, seconds=1.0)
    return space


@pytest.mark.parametrize(
    ("form", "left_out"),
    [
        ("messages", {}),
        ("prompt_completion", {}),
        ("alpaca", {"more than one turn before the reply": 1}),
        ("sharegpt", {}),
        ("parquet", {}),
    ],
)
def test_each_form_is_read_back_as_what_was_written(
    written: Workspace, tmp_path: Path, form: Form, left_out: dict[str, int]
):
    path, exported = write_export(tmp_path / "out", written, form)
    assert dict(exported.left_out) == left_out
    expected = [demonstration(rated).messages for rated in written.standing()]
    if form == "alpaca":
        del expected[1]
    ledger = Ledger()
    read = [conversation.messages for conversation in formats.read([str(path)], ledger=ledger)]
    assert read == expected
    assert exported.rows == len(read) == 4 - sum(left_out.values())
    assert ledger.rows_dropped == 0


def test_pairs_for_dpo_are_of_what_was_revised(written: Workspace, tmp_path: Path):
    path, exported = write_export(tmp_path / "out", written, "dpo")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(row["rejected"][0]["content"], row["chosen"][0]["content"]) for row in rows] == [
        ("first try", "better"),
        ("an old answer", "first try"),
    ]
    assert [turn["role"] for turn in rows[0]["prompt"]] == ["system", "user", "assistant", "user"]
    assert dict(exported.left_out) == {"no other text that it was made from": 2}
    read = list(formats.read([str(path)], ledger=Ledger()))
    assert [conversation.messages[-1].content for conversation in read] == ["better", "first try"]


def test_a_model_s_draft_is_the_rejected_side_where_it_was_changed(tmp_path: Path):
    space = workspace(tmp_path)
    for prompt, text in zip(space.prompts, ("as it was", "changed"), strict=False):
        space.suggest(prompt, "as it was", "some-model")
        space.submit("anna", prompt, page="p", text=text, after=None, began="model some-model", seconds=1.0)
    path, _ = write_export(tmp_path / "out", workspace(tmp_path), "dpo")
    (row,) = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("changed", "as it was")
