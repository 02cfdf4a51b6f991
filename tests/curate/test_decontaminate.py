"""Decontamination: what is met of planted contamination, what is left alone, and what stops the step before any row."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.curate.planted import vocabulary
from tutelage.config.curation import CurateSettings
from tutelage.curate.evaluation_items import evaluation_files, evaluation_items
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.errors import ConfigError, DataError, SourceNotFoundError

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/data"
needs_material = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")
WORDS = vocabulary(random.Random(2), 3000)


def text(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def row(prompt: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


def contaminated(
    folder: Path, rows: list[Any], *, held_out: tuple[str, ...] = (), workers: int = 1, **settings: Any
) -> dict[int, str]:
    """The dropped rows by number from 0, with the evidence."""
    source, out = write(folder / "rows.jsonl", rows), folder / f"out{len(list(folder.iterdir()))}"
    chosen = CurateSettings.model_validate({"steps": ["decontaminate"], "decontaminate": settings})
    curate(CurationRequest((source,), out, chosen, held_out=held_out, workers=workers, chunk_rows=100))
    entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    return {entry["row"]: entry["detail"] for entry in entries if entry.get("dropped") == "contaminated"}


def clean_rows(count: int, start: int = 10_000) -> list[Any]:
    return [row(text(start + number, 40), text(start + 5000 + number, 60)) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_verbatim_items_are_met_and_no_clean_row(tmp_path: Path, workers: int) -> None:
    generator = random.Random(3)
    items = [{"question": text(number, generator.randint(8, 90)), "answer": "42"} for number in range(200)]
    rows = clean_rows(400)
    planted = {}
    for number, item in enumerate(items):
        place = generator.randrange(len(rows) + 1)
        question = item["question"].upper().replace(" ", ", ") if number % 3 == 0 else item["question"]
        lead = text(20_000 + number, generator.randint(0, 30))
        turns = (f"{lead}. {question}? {lead}", "sure") if number % 2 else ("tell me more", f"{lead} {question}")
        rows.insert(place, {**row(*turns), "id": number})
    for place, planted_row in enumerate(rows):
        if "id" in planted_row:
            planted[place] = planted_row.pop("id")
    evaluation = write(tmp_path / "evaluation.jsonl", items)
    met = contaminated(tmp_path, rows, evaluations=[evaluation], workers=workers)
    assert met.keys() == planted.keys()
    for place, number in planted.items():
        assert met[place].startswith(f"{evaluation}:{number + 1}: ")
        assert " ".join(items[number]["question"].split()[:8]) in met[place]


def test_the_rules(tmp_path: Path) -> None:
    item = text(1, 100).split()
    evaluation = write(tmp_path / "e.jsonl", [{"prompt": " ".join(item)}])
    twelve, thirteen = " ".join(item[20:32]), " ".join(item[20:33])
    halves = " x ".join(" ".join(item[start : start + 12]) for start in range(0, 72, 12))
    rows = [row(shared, "yes") for shared in (twelve, thirteen, halves, " ".join(item[:50]))]

    def dropped(*rules: str, **settings: Any) -> set[int]:
        return set(contaminated(tmp_path, rows, evaluations=[evaluation], rules=list(rules), **settings))

    assert dropped("ngram", ngram_share=0.0) == {1, 3}
    assert dropped("ngram") == {3}, "13 words of 100 are a phrase"
    assert dropped("ngram", ngram_share=0.9) == {3}, "so many words in a row are none, whatever they are a share of"
    assert dropped("ngram", ngram_share=0.9, long_words=60) == set()
    assert dropped("coverage") == {2, 3}
    assert dropped("longest") == {3}
    assert dropped("ngram", "coverage") == {2, 3}


def test_half_of_a_short_text_is_a_phrase_and_so_is_what_many_rows_say(tmp_path: Path) -> None:
    item, greeting, long_item = text(1, 12).split(), "how are you today", text(2, 60).split()
    evaluation = write(
        tmp_path / "e.jsonl",
        [{"prompt": " ".join(item)}, {"prompt": greeting}, {"prompt": " ".join(long_item)}, {"prompt": text(4, 12)}],
    )
    rows = [row(" ".join(item[:8]), "a"), row(" ".join(item[:10]), "b"), *[row(greeting, f"c{n}") for n in range(6)]]
    chats = [{"messages": [*row("Hello", "Hi")["messages"], *row(greeting, f"d{n}")["messages"]]} for n in range(6)]
    rows += [row(" ".join(long_item[:40]) + f" {n}", "d") for n in range(6)]
    rows += [row(text(4, 12)[: -len(text(4, 12).split()[-1])] + f"other {n}", "e") for n in range(6)]
    rows += chats
    met = contaminated(tmp_path, rows, evaluations=[evaluation])
    assert met.keys() == set(range(1, 14)), "a long run and a whole prompt stay signs in six rows"
    whole = contaminated(tmp_path, [row(text(4, 12), str(n)) for n in range(9)], evaluations=[evaluation])
    assert len(whole) == 9, "an item that is there whole is one in any number of rows"
    assert contaminated(tmp_path, rows, evaluations=[evaluation], phrase_rows=7).keys() == set(range(1, 26))


def test_short_questions_are_met_whole_and_nowhere_else(tmp_path: Path) -> None:
    items = [{"question": "Who wrote Hamlet in London?"}, {"question": "Continue."}, {"question": text(5, 10)}]
    rows = [
        row("who wrote hamlet, in LONDON", "Shakespeare"),
        row("Tell me: who wrote Hamlet in London?", "Shakespeare"),
        row("Continue.", "yes"),
        row(text(5, 10), "short, but whole"),
    ]
    evaluation = write(tmp_path / "e.jsonl", items)
    met = contaminated(tmp_path, rows, evaluations=[evaluation])
    assert met.keys() == {0, 3}
    assert "the whole prompt is the question" in met[0]


def test_answers_are_met_if_they_are_long_and_never_if_short(tmp_path: Path) -> None:
    evaluation = write(
        tmp_path / "e.jsonl",
        [{"question": text(1, 20), "answer": "Yes"}, {"question": text(2, 20), "answer": text(3, 30)}],
    )
    rows = [row("is it so?", "Yes"), row("explain it", f"Well. {text(3, 30)}")]
    met = contaminated(tmp_path, rows, evaluations=[evaluation])
    assert met.keys() == {1}
    assert "100% of the answer" in met[1]


def test_a_template_of_the_set_is_no_sign_and_its_items_are(tmp_path: Path) -> None:
    template = text(1, 60)
    items = [{"input": f"{template} {text(100 + number, 20)}"} for number in range(30)]
    evaluation = write(tmp_path / "e.jsonl", items)
    rows = [row(f"{template} {text(999, 20)}", "a"), row(items[7]["input"], "b"), row(text(107, 20), "c")]
    assert contaminated(tmp_path, rows, evaluations=[evaluation]).keys() == {1, 2}
    assert contaminated(tmp_path, rows, evaluations=[evaluation], template_items=1000).keys() == {0, 1}


def test_held_out_rows_are_always_compared_and_what_rows_share_with_them_by_template_is_no_sign(tmp_path: Path) -> None:
    template = text(1, 40)

    def made(number: int) -> dict[str, Any]:
        talk = row(f"{template} {text(100 + number, 20)}", text(500 + number, 20))
        talk["messages"].insert(0, {"role": "system", "content": text(2, 30)})
        return talk

    rows = [made(number) for number in range(100)]
    held_out = write(tmp_path / "held.jsonl", [made(7), made(300)])
    met = contaminated(tmp_path, rows, held_out=(held_out,))
    assert met.keys() == {7}
    assert met[7].startswith(f"{held_out}:1: ")


def test_a_set_that_cannot_be_compared_stops_before_any_row(tmp_path: Path) -> None:
    rows = clean_rows(2)
    with pytest.raises(ConfigError, match="decontaminated against nothing"):
        contaminated(tmp_path, rows)
    with pytest.raises(SourceNotFoundError):
        contaminated(tmp_path, rows, evaluations=[str(tmp_path / "missing.jsonl")])
    for number, content in enumerate(("", "\n", json.dumps({"id": 3, "label": "x"}) + "\n")):
        path = tmp_path / f"bad{number}.jsonl"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            contaminated(tmp_path, rows, evaluations=[str(path)])
        assert path.name in str(caught.value)
    assert "curate.decontaminate.columns" in str(caught.value)
    assert not list(tmp_path.glob("out*/data.jsonl"))
    bare = write(tmp_path / "bare.jsonl", ["a question", "another one"])
    with pytest.raises(DataError, match="2 rows with not_an_object"):
        contaminated(tmp_path, rows, evaluations=[bare])
    labelled = write(tmp_path / "labelled.jsonl", [{"label": text(3, 12)}])
    assert contaminated(tmp_path, [row(text(3, 12), "x")], evaluations=[labelled], columns=["label"]).keys() == {0}


PUBLISHED = {
    "fastchat_mt_bench_question.jsonl": 80,
    "fastchat_vicuna_bench_question.jsonl": 80,
    "arenahard_question.jsonl": 500,
    "ifeval_input_data.jsonl": 541,
    "gsm8k_test.jsonl": 1319,
    "humaneval.jsonl.gz": 164,
    "humanevalpack_python.jsonl": 164,
    "bbh_penguins_in_a_table.json": 146,
    "bbh_date_understanding.json": 250,
    "bfcl_live_simple.jsonl": 258,
    "bfcl_multiple.jsonl": 200,
    "selfinstruct_user_oriented.jsonl": 252,
    "anthropic_evals_corrigible.jsonl": 351,
}


@needs_material
@pytest.mark.parametrize(("name", "items"), PUBLISHED.items())
def test_each_item_of_published_sets_has_a_question(name: str, items: int) -> None:
    (file,) = evaluation_files([str(MATERIAL / name)])
    texts = evaluation_items(file)
    assert len({item.address for item in texts if item.part == "prompt"}) == items


@needs_material
def test_published_questions_are_met_in_rows_made_of_them(tmp_path: Path) -> None:
    names = ["gsm8k_test.jsonl", "fastchat_mt_bench_question.jsonl", "ifeval_input_data.jsonl", "humaneval.jsonl.gz"]
    (file,) = evaluation_files([str(MATERIAL / "gsm8k_test.jsonl")])
    questions = [item.text for item in evaluation_items(file) if item.part == "prompt"][:200]
    rows = [row(f"Solve this for me, please. {question}", "Here it is.") for question in questions] + clean_rows(200)
    met = contaminated(tmp_path, rows, evaluations=[str(MATERIAL / name) for name in names])
    assert met.keys() == set(range(200))


def test_what_each_set_met_and_what_sets_share_is_reported(tmp_path: Path) -> None:
    short, long, own = "Who wrote Hamlet in London?", text(8, 20), text(9, 20)
    first = write(tmp_path / "a.jsonl", [{"question": short}, {"question": long}, {"question": text(11, 20)}])
    second = write(tmp_path / "b.jsonl", [{"question": own}, {"question": f"Please: {long}"}, {"question": short}])
    rows = [row(short, "x"), row(long, "x"), row(own, "x"), *clean_rows(3)]
    met = contaminated(tmp_path, rows, evaluations=[first, second])
    assert met.keys() == {0, 1, 2}
    assert met[0].startswith(f"{first}:1: ")
    assert met[0].endswith(f"; also {second}:3")
    assert "also" not in met[2]
    (out,) = tmp_path.glob("out*")
    report = json.loads((out / "decontaminate.json").read_text(encoding="utf-8"))
    source = str(tmp_path / "rows.jsonl")
    assert report["rows"] == [
        {"source": source, "evaluation": second, "rows": 3},
        {"source": source, "evaluation": first, "rows": 2},
    ]
    assert report["evaluations"] == [
        {
            "evaluations": [first, second],
            "items": [2, 2],
            "samples": [[f"{first}:1", f"{second}:3"], [f"{first}:2", f"{second}:2"]],
        }
    ]
    card = (out / "card.md").read_text(encoding="utf-8")
    assert f"rows of {source} with items of {second}: 3" in card
    assert f"evaluation sets share items: 2 of {first}, 2 of {second}" in card
