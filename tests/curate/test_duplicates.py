"""The steps exact_duplicates and near_duplicates, through the whole pipeline."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.curate.planted import edited, vocabulary
from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.errors import ConfigError, DataError

WORDS = vocabulary(random.Random(1), 2000)


def said(prompt: str, reply: str, system: str | None = None) -> list[dict[str, str]]:
    turns = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def text(seed: int, count: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


class Outcome:
    """What became of rows: the kept rows by number from 1, and the merged ones with the row that stands for them."""

    def __init__(self, out: Path, source: Path) -> None:
        entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
        self.merged = {
            self._number(entry["address"]): self._number(entry["anchor"]) for entry in entries if "merged" in entry
        }
        self.details = {self._number(entry["address"]): entry["detail"] for entry in entries if "merged" in entry}
        self.rows = len((out / "data.jsonl").read_text(encoding="utf-8").splitlines())
        assert all(str(source) in entry["anchor"] for entry in entries if "merged" in entry)

    @staticmethod
    def _number(address: str) -> int:
        return int(address.rsplit(":", 1)[1])


def outcome(folder: Path, rows: Sequence[Any], step: str, workers: int = 1, **settings: Any) -> Outcome:
    source, out = folder / "rows.jsonl", folder / f"out{len(list(folder.iterdir()))}"
    written = [row if isinstance(row, dict) else {"messages": row} for row in rows]
    source.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    chosen = CurateSettings.model_validate({"steps": [step], step: settings})
    curate(CurationRequest((str(source),), out, chosen, workers=workers, chunk_rows=64))
    return Outcome(out, source)


EXACT = [
    said("Name a bird.", "A wren."),
    said("Name a  bird.\n", "A wren."),
    said("name a bird.", "A wren."),
    said("Name a bird", "A wren!"),
    said("Name a bird.", "An owl, which hunts by night."),
    said("Name a bird.", "A wren.", system="Be brief."),
    said("Name a bird.", "A wren."),
]


@pytest.mark.parametrize(
    ("settings", "merged"),
    [
        ({"normalize": "nothing"}, {7: 1}),
        ({}, {2: 1, 7: 1}),
        ({"normalize": "case"}, {2: 1, 3: 1, 7: 1}),
        ({"normalize": "words"}, {2: 1, 3: 1, 4: 1, 7: 1}),
        ({"on": "prompt"}, {2: 1, 5: 1, 6: 1, 7: 1}),
        ({"on": "reply"}, {2: 1, 3: 1, 6: 1, 7: 1}),
        ({"keep": "last"}, {1: 7, 2: 7}),
        ({"on": "prompt", "keep": "longest"}, {2: 1, 5: 1, 6: 1, 7: 1}),
    ],
)
def test_exact_duplicates(tmp_path: Path, settings: dict[str, Any], merged: dict[int, int]) -> None:
    result = outcome(tmp_path, EXACT, "exact_duplicates", **settings)
    assert result.merged == merged
    assert result.rows == len(EXACT) - len(merged)


def test_a_prompt_with_other_tools_is_another_row(tmp_path: Path) -> None:
    source, tool = tmp_path / "rows.jsonl", {"type": "function", "function": {"name": "f", "parameters": {}}}
    rows = [{"messages": EXACT[0]}, {"messages": EXACT[0], "tools": [tool]}, {"messages": EXACT[0], "tools": [tool]}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chosen = CurateSettings.model_validate({"steps": ["exact_duplicates"]})
    curate(CurationRequest((str(source),), tmp_path / "out", chosen, workers=1))
    assert Outcome(tmp_path / "out", source).merged == {3: 2}


def test_rows_are_kept_by_a_score_only_where_they_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curate\.exact_duplicates\.keep is 'score'"):
        outcome(tmp_path, EXACT, "exact_duplicates", keep="score")


def test_rows_of_one_id_are_copies_where_it_is_named(tmp_path: Path) -> None:
    short, long = said("Go on.", "Once."), said("Go on.", "Once upon a time.")
    rows = [
        {"id": "a", "messages": short},
        {"id": "b", "messages": said("Hello.", "Hi.")},
        {"id": "a", "messages": long},
        {"messages": said("Who?", "I.")},
        {"id": "c", "messages": short},
    ]
    assert outcome(tmp_path, rows, "exact_duplicates").merged == {5: 1}
    by_id = outcome(tmp_path, rows, "exact_duplicates", field="id", keep="longest")
    assert by_id.merged == {1: 3, 5: 3}  # row 5 is a copy of row 1, and row 3 stands for that one
    assert by_id.details[1] == "the same id: 'a'"
    with pytest.raises(ConfigError, match=r"a field that no row has"):
        outcome(tmp_path, rows, "exact_duplicates", field="ix")


def test_parts_of_one_conversation_are_no_copies_of_each_other(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    source = tmp_path / "rows.jsonl"
    turns = [turn for place in range(4) for turn in said(f"question {place} " * 9, f"answer {place} " * 9)]
    source.write_text((json.dumps({"id": "a", "messages": turns}) + "\n") * 2, encoding="utf-8")
    split = {"conversation_tokens": 80, "tokenizer": str(tiny_tokenizer_folder)}
    chosen = CurateSettings.model_validate(
        {"steps": ["sharegpt", "exact_duplicates"], "sharegpt": split, "exact_duplicates": {"field": "id"}}
    )
    curate(CurationRequest((str(source),), tmp_path / "out", chosen, workers=1))
    rows = [json.loads(line) for line in (tmp_path / "out" / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 1
    assert {row["metadata"]["row"] for row in rows} == {0}
    assert sum(len(row["messages"]) for row in rows) == len(turns)


def near_rows() -> list[list[dict[str, str]]]:
    """100 rows of their own, then near-copies of the first three and the traps."""
    generator = random.Random(4)
    prompts = [text(number, 40) for number in range(100)]
    replies = [text(1000 + number, 80) for number in range(100)]
    rows = [said(" ".join(prompt), " ".join(reply)) for prompt, reply in zip(prompts, replies, strict=True)]
    rows.append(said(" ".join(prompts[0]).upper() + "!", " ".join(edited(generator, replies[0], WORDS, 2))))
    rows.append(said(" ".join(edited(generator, prompts[1], WORDS, 1)), " ".join(replies[1])))
    rows.append(said(" ".join(prompts[2]), " ".join(text(5001, 80))))  # the same prompt, another good reply
    rows.append(said(" ".join(text(5002, 40)), " ".join(replies[2])))  # another prompt with the same reply
    rows.append(said("今天天气怎么样,我们去公园好吗?", "好的,今天天气很好,我们一起去公园散步吧。"))
    rows.append(said("How is the weather today, shall we go to the park?", "Yes, let us take a walk there."))
    return rows


def test_near_copies_go_and_what_only_seems_one_stays(tmp_path: Path) -> None:
    result = outcome(tmp_path, near_rows(), "near_duplicates")
    assert result.merged == {101: 1, 102: 2}
    assert all(float(detail.removeprefix("similarity ")) >= 0.8 for detail in result.details.values())


@pytest.mark.parametrize(("on", "merged"), [("prompt", {101: 1, 103: 3}), ("reply", {101: 1, 102: 2, 104: 3})])
def test_prompts_or_replies_alone_are_compared_if_asked(tmp_path: Path, on: str, merged: dict[int, int]) -> None:
    result = outcome(tmp_path, near_rows(), "near_duplicates", on=on, similarity=0.75)
    assert merged.items() <= result.merged.items()
    assert {103, 104} & result.merged.keys() == {103, 104} & merged.keys()


def test_the_row_that_is_kept_is_chosen_by_the_rule(tmp_path: Path) -> None:
    last = outcome(tmp_path, near_rows(), "near_duplicates", keep="last")
    assert last.merged == {1: 101, 2: 102}
    rows = near_rows()
    rows[100][1]["content"] += " and more to say of it"
    assert outcome(tmp_path, rows, "near_duplicates", keep="longest").merged[1] == 101


def test_any_number_of_workers_decides_the_same(tmp_path: Path) -> None:
    first, second = (outcome(tmp_path, near_rows(), "near_duplicates", workers=workers) for workers in (1, 2))
    assert (first.merged, first.details) == (second.merged, second.details)


def templated(count: int) -> list[list[dict[str, str]]]:
    """Rows that share a template far longer than what differs."""
    template = " ".join(text(5, 120))
    return [said(f"{template} {' '.join(text(2000 + row, 4))}", " ".join(text(3000 + row, 6))) for row in range(count)]


def test_rows_that_share_a_template_are_not_duplicates(tmp_path: Path) -> None:
    rows = templated(80)
    rows.append(rows[3])
    assert outcome(tmp_path, rows, "near_duplicates", side_similarity=0.0).merged == {81: 4}


def test_a_cluster_that_takes_much_of_a_source_stops_the_step(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        outcome(tmp_path, templated(40), "near_duplicates", side_similarity=0.0)
    shown = str(caught.value)
    assert "40 of 40 rows" in shown
    assert "rows.jsonl:1" in shown
    assert "template_rows (to 20)" in shown
    assert "cluster_share=1" in shown
    mended = outcome(tmp_path, templated(40), "near_duplicates", side_similarity=0.0, template_rows=20)
    assert mended.merged == {}
    forced = outcome(tmp_path, templated(40), "near_duplicates", side_similarity=0.0, cluster_share=1.0)
    assert len(forced.merged) == 39


def test_no_rows_and_rows_without_words(tmp_path: Path) -> None:
    rows = [said("?", "!"), said("...", "-")]
    assert outcome(tmp_path, rows, "near_duplicates").merged == {}
    assert outcome(tmp_path, rows[:1], "exact_duplicates").merged == {}


def test_a_source_that_is_mostly_another_one_is_told(tmp_path: Path) -> None:
    turns = [said(" ".join(text(number, 8)), " ".join(text(900 + number, 8))) for number in range(9)]
    contents = {"a": turns[:6], "twin": [*turns[:6], turns[0]], "half": [*turns[:3], *turns[6:]], "some": turns[5:9]}
    files = []
    for name, rows in contents.items():
        files.append(str(tmp_path / f"{name}.jsonl"))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    chosen = CurateSettings.model_validate({"steps": ["exact_duplicates"]})
    notes = curate(CurationRequest(tuple(files), tmp_path / "out", chosen, workers=1)).notes
    how = "have the same conversation, white space aside, as rows of"
    assert notes == (
        f"all 7 rows of {files[1]} {how} {files[0]}",
        f"3 of 4 rows of {files[3]} {how} {files[2]}",
        f"3 of 6 rows of {files[2]} {how} {files[0]}",
    )
