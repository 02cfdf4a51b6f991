"""`tutelage curate`: what a person sees of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran
from tests.support.fake_endpoint import fake_endpoint
from tests.support.fake_endpoint import said as said_by
from tutelage.curate.steps import STEPS

Run = Callable[..., Ran]


def row(prompt: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


TWICE = [row("What is two and two?", "It is four."), row("And three and three?", "It is six.")] * 2


@pytest.fixture
def curate(run: Run, rows: Callable[..., Path], tmp_path: Path) -> Callable[..., Ran]:
    """Curates four rows, of which two are twice, with exact duplicates alone unless told otherwise."""
    source = rows(*TWICE)

    def curated(*words: str | Path, steps: str = "exact_duplicates") -> Ran:
        return run("curate", source, "-o", tmp_path / "out", "--steps", steps, "--workers", "1", *words, model=None)

    return curated


def test_what_went_and_where_it_is(curate: Callable[..., Ran], tmp_path: Path) -> None:
    ran = curate()
    assert ran.code == 0, ran.err
    assert "4 rows read, 2 kept" in ran.out
    assert "exact_duplicates: 4 in, 2 out" in ran.out
    assert str(tmp_path / "out" / "data.jsonl") in ran.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".work", "card.md", "data.jsonl", "dropped.jsonl", "funnel.json", "hashes.json", "ledger.jsonl",
        "report.html",
    ]  # fmt: skip


def test_the_page_is_named_and_can_be_left_out(curate: Callable[..., Ran], tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    assert f"{page}: steps, rows and findings" in (ran := curate()).out
    assert "(drawn in " in ran.out
    assert "report.html" not in curate("--no-page").out
    assert not page.exists()


def test_a_page_of_somebody_else_is_not_replaced(curate: Callable[..., Ran], tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    curate("--no-page")
    page.write_text("mine", encoding="utf-8")
    assert curate().code == 1
    assert page.read_text(encoding="utf-8") == "mine"


def test_a_dry_run_names_the_steps_that_it_does_not_take(curate: Callable[..., Ran], tmp_path: Path) -> None:
    ran = curate("--dry-run", steps="quality,exact_duplicates")
    assert "quality: 4 in, 4 out" in ran.out
    assert "not taken, as it must see all rows: exact_duplicates (one row goes on of rows" in ran.err
    assert curate("--dry-run", "--json").lines[0]["left_out"] == ["exact_duplicates"]
    assert curate("--dry-run", "--json", "--limit", "1").lines[0]["in"] == 1
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_a_judge_would_take(
    curate: Callable[..., Ran], tmp_path: Path, tiny_tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    with fake_endpoint(lambda _body, _place: said_by('{"quality": 4, "complexity": 2}')) as fake:
        table = ("--set", f"curate.judge.url={fake.url}", "--set", "curate.judge.model=m")
        prices = ("--set", "curate.judge.prompt_price=2", "--set", "curate.judge.answer_price=10")
        asked = "exact_duplicates,judge"
        ran = curate("--dry-run", *table, steps=asked)
        assert "judge: 2 questions about 4 rows\n" in ran.out
        assert "(roughly, 4 characters each: curate.judge.tokenizer counts them)" in ran.out
        assert "answers: 120 tokens (assumed, a sentence each), at most 1,024" in ran.out
        assert "cost: no price is given" in ran.out
        assert "time: not known; 0.5" in ran.out
        assert "exact_duplicates (one row" in ran.err
        assert not fake.requests
        curate(*table, "--set", "curate.judge.most_requests=1", steps=asked)
        tokenizer = ("--set", f"curate.judge.tokenizer={tiny_tokenizer_folder}")
        estimate = curate("--dry-run", "--json", *table, *prices, *tokenizer, steps=asked).lines[0]["estimates"][
            "judge"
        ]
        assert len(fake.requests) == 1
    assert (estimate["rows"], estimate["questions"], estimate["answered"], estimate["answers_measured"]) == (4, 1, 1, 1)
    assert estimate["counted"] is True
    assert estimate["cost"] == (2 * estimate["prompt_tokens"] + 10 * estimate["answer_tokens"]) / 1e6
    assert estimate["most_cost"] == (2 * estimate["prompt_tokens"] + 10 * 512) / 1e6
    assert 0 < estimate["seconds"] < 10


def test_json_for_programs(curate: Callable[..., Ran]) -> None:
    (books,) = curate("--json").lines
    assert (books["in"], books["kept"], books["merged"]) == (4, 2, 2)


def test_clean_leaves_nothing_to_go_on_with(curate: Callable[..., Ran], tmp_path: Path) -> None:
    curate("--clean")
    assert not (tmp_path / "out" / ".work").exists()


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_rows_that_went_are_put_back_in_their_place(
    curate: Callable[..., Ran], run: Run, tmp_path: Path, to: str
) -> None:
    curate("--to", to)
    out = tmp_path / "out"
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(dropped) == 2
    ran = run("curate", "--restore", dropped[0]["address"], "-o", out, model=None)
    assert (ran.code, ran.out) == (0, f"1 rows are back in {out}; report.html showed what was before, and is gone\n")
    assert not (out / "report.html").exists()
    funnel = json.loads((out / "funnel.json").read_text(encoding="utf-8"))
    assert (funnel["kept"], funnel["merged"], funnel["restored"]) == (3, 1, 1)
    back = run("curate", "--restore", dropped[1]["merged"], "-o", out, model=None)
    assert (back.code, back.out) == (0, f"1 rows are back in {out}\n"), back.err
    assert (out / "dropped.jsonl").read_bytes() == b""
    shown = run("curate", out / f"data.{to}", "-o", tmp_path / "again", "--steps", "", "--workers", "1", model=None)
    assert "4 rows read, 4 kept" in shown.out
    again = (tmp_path / "again" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"] for line in again] == [one["messages"] for one in TWICE]
    booked = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum("restored" in entry for entry in booked) == 2


def test_a_row_with_a_line_separator_inside_comes_back(run: Run, rows: Callable[..., Path], tmp_path: Path) -> None:
    out, source = tmp_path / "out", rows(*[row("Two lines?", "One.\u2028Two.\x85Three.")] * 2)
    run("curate", source, "-o", out, "--steps", "exact_duplicates", "--workers", "1", model=None)

    ran = run("curate", "--restore", "exact_duplicate", "-o", out, model=None)

    assert ran.code == 0, ran.err
    texts = (out / "data.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(text)["messages"][1]["content"] for text in texts] == ["One.\u2028Two.\x85Three."] * 2


def test_a_row_that_comes_back_has_what_it_said_of_itself(run: Run, rows: Callable[..., Path], tmp_path: Path) -> None:
    out, same = tmp_path / "out", row("Two?", "Yes.")
    run("curate", rows({"id": "a", **same}, {"id": "b", **same}), "-o", out, "--steps", "exact_duplicates", model=None)

    assert run("curate", "--restore", "exact_duplicate", "-o", out, model=None).code == 0

    kept = [json.loads(line)["metadata"] for line in (out / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [metadata["id"] for metadata in kept] == ["a", "b"]


def test_restored_rows_stay_where_the_same_command_is_given_again(
    curate: Callable[..., Ran], run: Run, tmp_path: Path
) -> None:
    curate()
    out = tmp_path / "out"
    (address, _) = [json.loads(line)["address"] for line in (out / "dropped.jsonl").read_text("utf-8").splitlines()]
    run("curate", "--restore", address, "-o", out, model=None)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    again = curate()

    assert again.code == 0, again.err
    assert "1 restored rows are in" in again.out
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    run("curate", "--restore", "exact_duplicate", "-o", out, model=None)
    assert "2 restored rows are in" in curate().out


def test_restored_rows_are_not_lost_to_other_settings(curate: Callable[..., Ran], run: Run, tmp_path: Path) -> None:
    curate()
    out = tmp_path / "out"
    run("curate", "--restore", "exact_duplicate", "-o", out, model=None)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    other = curate(steps="normalize,exact_duplicates")

    assert other.code == 1
    assert "Rows were restored in this folder" in other.err
    assert "2 restored rows" in other.err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_nothing_to_restore_names_the_reasons_there_are(curate: Callable[..., Ran], run: Run, tmp_path: Path) -> None:
    curate()
    ran = run("curate", "--restore", "too_long", "-o", tmp_path / "out", model=None)
    assert ran.code == 1
    assert "exact_duplicate" in ran.err


def test_steps_are_listed_with_whether_they_are_on(run: Run) -> None:
    ran = run("curate", "--list-steps", model=None)
    assert [line.split()[0] for line in ran.out.splitlines()] == [step.name for step in STEPS]
    assert all(line.split()[1] in ("on", "off") for line in ran.out.splitlines())


def test_a_dry_run_writes_nothing(curate: Callable[..., Ran], tmp_path: Path) -> None:
    ran = curate("--dry-run", steps="normalize")
    assert "4 rows read, 4 kept" in ran.out
    assert "nothing was written" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_judge_whose_budget_ends_is_told_with_the_command_that_goes_on(
    curate: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    with fake_endpoint(lambda _, __: said_by('{"quality": 4, "complexity": 1}')) as fake:
        words = ("--set", f"curate.judge.url={fake.url}", "--set", "curate.judge.model=m")
        ran = curate(*words, "--set", "curate.judge.most_requests=1", steps="judge")
    assert ran.code == 0, ran.err
    assert "judge: not all was asked, as the budget is spent: curate.judge.most_requests 1" in ran.err
    assert "2 rows have no score" in ran.err
    (again,) = [line for line in ran.err.splitlines() if line.startswith("What was answered is kept; to go on: ")]
    assert again.partition("to go on: ")[2].startswith("tutelage curate ")
    assert "--set curate.judge.most_requests=1" in again
    assert "judge: 1 requests, 100 tokens were spent now" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "normalise"), 'there is no step "normalise"; did you mean "normalize"?'),
        (("--set", "curate.near_duplicates.similarty=0.9"), "did you mean curate.near_duplicates.similarity?"),
        (("--set", "curate.normalise.mojibake=false"), "did you mean curate.normalize.mojibake?"),
        (("--set", "curate.near_duplicates.similarity=1.5"), "should be at most 1"),
        (("--to", "csv"), "jsonl or parquet"),
        (("--format", "sharegtp"), "sharegpt"),
        (("--tokenizer", "no/such"), "no such tokenizer"),
    ],
)
def test_what_cannot_be_is_said_before_any_row_is_read(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """The data is not there, and nobody got as far as to notice."""
    ran = run("curate", tmp_path / "none.jsonl", "-o", tmp_path / "out", *words, model=None)
    assert ran.code == 1
    assert said in ran.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_ours_is_refused(curate: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine", encoding="utf-8")
    ran = curate()
    assert ran.code == 1
    assert "thesis.tex" in ran.err


def test_no_data_and_no_folder_are_asked_for(run: Run, rows: Callable[..., Path]) -> None:
    assert "No data was named" in run("curate", "-o", "out", model=None).err
    assert "No folder was named" in run("curate", rows(*TWICE), model=None).err


def test_a_recipe_names_data_and_steps(run: Run, rows: Callable[..., Path], tmp_path: Path) -> None:
    source = rows(*TWICE)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[data]\ntrain = ["{source}"]\n[curate]\nsteps = []\n', encoding="utf-8")
    ran = run("curate", "--config", recipe, "-o", tmp_path / "out", "--workers", "1", model=None)
    assert "4 rows read, 4 kept" in ran.out
    other = run("curate", "--config", recipe, "-o", tmp_path / "out", "--steps", "exact_duplicates", model=None)
    assert "4 rows read, 2 kept" in other.out


def test_the_card_names_sources_with_licenses_and_lengths(
    run: Run, rows: Callable[..., Path], tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    free, bound = rows(*TWICE, name="free.jsonl"), rows(row("a b", "c d e"), name="bound.jsonl")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    ran = run(
        "curate", free, bound, "-o", tmp_path / "out", "--steps", "", "--workers", "1",
        "--set", f'curate.licenses={{"{bound}" = "CC-BY-NC-4.0"}}', "--tokenizer", tiny_tokenizer_folder,
        model=None,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    card = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    sources = [line for line in card.splitlines() if line.startswith((f"| {free}", f"| {bound}"))]
    assert sources[0] == f"| {bound} | CC-BY-NC-4.0, **non-commercial** | 1 | 1 |"
    assert sources[1] == f"| {free} | mit | 4 | 4 |"
    assert f"| {bound} | prompt words | 2 | 2.0 | 2 | 2 | 2 |" in card
    assert f"| {bound} | reply words | 3 | 3.0 | 3 | 3 | 3 |" in card
    assert "| all | tokens | " in card


def test_keep_chooses_so_many_rows_and_says_what_they_cover(
    run: Run, rows: Callable[..., Path], tmp_path: Path
) -> None:
    source = rows(*(row(f"q {number}", f"word{number} " * number) for number in range(1, 21)))
    words = ["--keep", "4", "--set", "curate.select.method=longest", "--steps", "normalize", "--workers", "1"]
    ran = run("curate", source, "-o", tmp_path / "out", *words, model=None)
    assert ran.code == 0, ran.err
    kept = [json.loads(line) for line in (tmp_path / "out" / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["metadata"]["row"] for record in kept] == [16, 17, 18, 19]
    assert "select: 20 in, 4 out" in ran.out
    assert "select: the 4 rows chosen cover " in ran.out
