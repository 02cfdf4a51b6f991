"""What the command says of published files, by file and row: the tables of docs/curate.md, "What the steps meet"."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/data"
pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")
FLAN = "prompt=0,response=2"
MT_BENCH, VICUNA_BENCH = "fastchat_mt_bench_question.jsonl", "fastchat_vicuna_bench_question.jsonl"


class Curation:
    """What one command printed, and its books."""

    def __init__(self, ran: Ran, out: Path) -> None:
        assert ran.code == 0, ran.err
        self.out, self.printed = out, ran.out
        self.entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]

    def merged(self) -> dict[str, str]:
        """The row that stands for each merged one, by their addresses without folders."""
        return {Path(entry["address"]).name: Path(entry["anchor"]).name for entry in self.entries if "merged" in entry}

    def report(self) -> Any:
        """Of decontaminate."""
        return json.loads((self.out / "decontaminate.json").read_text(encoding="utf-8"))


@pytest.fixture
def curate(run: Callable[..., Ran], tmp_path: Path) -> Callable[..., Curation]:
    def curated(*sources: str | Path, steps: str, columns: str | None = None, **settings: object) -> Curation:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        words: list[str | Path] = [MATERIAL / source for source in sources]
        for name, value in settings.items():
            words += ["--set", f"curate.{name.replace('__', '.')}={json.dumps(value)}"]
        words += [] if columns is None else ["--columns", columns]
        return Curation(run("curate", *words, "-o", out, "--steps", steps, "--workers", "1", model=None), out)

    return curated


def decontaminated(
    curate: Callable[..., Curation], *sources: str | Path, evaluations: list[str], **more: Any
) -> Curation:
    paths = [str(MATERIAL / name) for name in evaluations]
    return curate(*sources, steps="decontaminate", decontaminate__evaluations=paths, **more)


def test_one_file_in_two_shapes(curate: Callable[..., Curation]) -> None:
    done = curate("msswift_chatml.jsonl", "msswift_conversations.jsonl", steps="exact_duplicates")
    assert done.merged() == {f"msswift_conversations.jsonl:{row}": f"msswift_chatml.jsonl:{row}" for row in (1, 2, 3)}
    assert f"all 3 rows of {MATERIAL / 'msswift_conversations.jsonl'} have the same conversation" in done.printed


@pytest.mark.parametrize(
    ("name", "copies", "first"),
    [
        ("octopack_oasstcommitpackft.jsonl", 110, (":5", ":1")),
        ("llamafactory_glaive_toolcall_en_demo.json", 35, ("[6]", "[4]")),
        ("llamafactory_dpo_en_demo.json", 5, ("[157]", "[13]")),
        ("llamafactory_v1_sft_demo.jsonl", 1, (":326", ":168")),
    ],
)
def test_copies_in_one_file(curate: Callable[..., Curation], name: str, copies: int, first: tuple[str, str]) -> None:
    merged = curate(name, steps="exact_duplicates").merged()
    assert len(merged) == copies
    assert next(iter(merged.items())) == (name + first[0], name + first[1])


@pytest.mark.nightly  # whole published files; the others here are small ones
def test_the_questions_of_flan_are_those_of_gsm8k(curate: Callable[..., Curation], tmp_path: Path) -> None:
    flan = curate("flan_cot_gsm8k.tsv", columns=FLAN, steps="normalize").out / "data.jsonl"
    found = {}
    for compared in ("nothing", "space", "words"):
        done = curate(
            "gsm8k_train.jsonl", "gsm8k_test.jsonl", flan, steps="exact_duplicates",
            exact_duplicates__on="prompt", exact_duplicates__normalize=compared,
        )  # fmt: skip
        found[compared] = done.merged()
    assert {name: len(merged) for name, merged in found.items()} == {"nothing": 5656, "space": 7472, "words": 7473}
    assert found["words"] == {f"data.jsonl:{row}": f"gsm8k_train.jsonl:{row}" for row in range(1, 7474)}
    assert "data.jsonl:7389" not in found["space"]
    assert f"all 7,473 rows of {flan} have the same prompt, word by word, as" in done.printed


@pytest.mark.nightly  # whole published files; the others here are small ones
def test_near_copies(curate: Callable[..., Curation], tmp_path: Path) -> None:
    flan = curate("flan_cot_gsm8k.tsv", columns=FLAN, steps="normalize").out / "data.jsonl"
    merged = curate("gsm8k_train.jsonl", "gsm8k_test.jsonl", flan, steps="near_duplicates").merged()
    assert len(merged) == 880
    assert all(copy == anchor.replace("gsm8k_train", "data") for copy, anchor in merged.items())
    questions = curate("gsm8k_train.jsonl", steps="near_duplicates", near_duplicates__on="prompt").merged()
    assert questions == {"gsm8k_train.jsonl:6692": "gsm8k_train.jsonl:2484"}


def test_end_tokens_of_t0(curate: Callable[..., Curation]) -> None:
    changed = Counter(
        Path(entry["address"]).name.partition(".")[0]
        for entry in curate("t0_*.jsonl", steps="normalize").entries
        if entry.get("changed") == "end_token_in_text"
    )
    assert sorted(changed.values()) == [200, 200, 200, 200]


def shared_items(done: Curation) -> dict[tuple[str, ...], tuple[list[int], list[list[int]]]]:
    """How many items of two sets are shared, and the numbers of their rows."""
    return {
        tuple(Path(file).name for file in pair["evaluations"]): (
            pair["items"],
            [[int(address.rpartition(":")[2]) for address in sample] for sample in pair["samples"]],
        )
        for pair in done.report()["evaluations"]
    }


def test_questions_that_evaluation_sets_share(curate: Callable[..., Curation]) -> None:
    names = [MT_BENCH, VICUNA_BENCH, "gsm8k_test.jsonl"]
    done = decontaminated(curate, "fastchat_dummy_conversation.json", evaluations=names)
    assert shared_items(done) == {
        (MT_BENCH, VICUNA_BENCH): ([3, 3], [[1, 77], [42, 64], [50, 67]]),
        (MT_BENCH, "gsm8k_test.jsonl"): ([1, 1], [[35, 327]]),
    }
    assert "evaluation sets share items: 3 of" in done.printed


EVALUATIONS = [
    "anthropic_evals_corrigible.jsonl", "arenahard_question.jsonl", "bbh_date_understanding.json",
    "bbh_penguins_in_a_table.json", "bfcl_irrelevance.jsonl", "bfcl_live_simple.jsonl", "bfcl_multiple.jsonl",
    "bfcl_parallel_multiple.jsonl", "bfcl_simple_java.jsonl", MT_BENCH, VICUNA_BENCH,
    "gorilla_openfunctions_v1_test.json", "gsm8k_test.jsonl", "humaneval.jsonl.gz", "humanevalpack_python.jsonl",
    "ifeval_input_data.jsonl", "openinstruct_rlvr_test.jsonl", "selfinstruct_user_oriented.jsonl",
]  # fmt: skip
TRAINING = [
    "fastchat_dummy_conversation.json", "gpteacher_toolformer06.json", "gsm8k_train.jsonl",
    "llamafactory_c4_demo.jsonl", "llamafactory_dpo_en_demo.json", "llamafactory_glaive_toolcall_en_demo.json",
    "llamafactory_identity.json", "llamafactory_reason_tool_use_demo_50.jsonl", "llamafactory_v1_dpo_demo.jsonl",
    "llamafactory_v1_sft_demo.jsonl", "oasst_en_100_message.jsonl", "octopack_oasstcommitpackft.jsonl",
    "selfinstruct_seed_tasks.jsonl", "t0_*.jsonl", "tinker_conversations.jsonl",
]  # fmt: skip
TOOLFORMER = "gpteacher_toolformer06.json"
CONTAMINATED = {
    ("gsm8k_train.jsonl", "gsm8k_test.jsonl"): 3,
    (TOOLFORMER, "bfcl_multiple.jsonl"): 4,
    (TOOLFORMER, "bfcl_irrelevance.jsonl"): 2,
    (TOOLFORMER, "gorilla_openfunctions_v1_test.json"): 2,
    (TOOLFORMER, "selfinstruct_user_oriented.jsonl"): 1,
    ("tinker_conversations.jsonl", "bfcl_multiple.jsonl"): 1,
}


def pairs_of(done: Curation) -> dict[tuple[str, str], int]:
    return {(Path(pair["source"]).name, Path(pair["evaluation"]).name): pair["rows"] for pair in done.report()["rows"]}


@pytest.mark.nightly  # whole published files; the others here are small ones
def test_every_pair_of_training_file_and_evaluation_set(curate: Callable[..., Curation]) -> None:
    done = decontaminated(curate, *TRAINING, evaluations=EVALUATIONS)
    assert pairs_of(done) == CONTAMINATED
    assert {pair: items for pair, (items, _) in shared_items(done).items()} == {
        ("bfcl_irrelevance.jsonl", "bfcl_multiple.jsonl"): [4, 4],
        ("bfcl_multiple.jsonl", "bfcl_parallel_multiple.jsonl"): [3, 3],
        (MT_BENCH, VICUNA_BENCH): [3, 3],
        (MT_BENCH, "gsm8k_test.jsonl"): [1, 1],
        ("humaneval.jsonl.gz", "humanevalpack_python.jsonl"): [164, 164],
        ("humaneval.jsonl.gz", "selfinstruct_user_oriented.jsonl"): [1, 1],
        ("humanevalpack_python.jsonl", "selfinstruct_user_oriented.jsonl"): [1, 1],
    }


@pytest.mark.parametrize(
    ("name", "columns", "met"),
    [
        ("flan_cot_gsm8k.tsv", FLAN, {"gsm8k_test.jsonl": 3}),
        ("flan_cot_aqua.tsv", FLAN, {}),
        ("flan_cot_qasc.tsv", FLAN, {}),
        ("flan_cot_sensemaking.tsv", FLAN, {}),
        (
            "octopack_oasst_rawin.jsonl",
            "text=instruction",
            {"arenahard_question.jsonl": 2},
        ),
    ],
)
def test_files_whose_columns_are_named(
    curate: Callable[..., Curation], name: str, columns: str, met: dict[str, int]
) -> None:
    done = decontaminated(curate, name, evaluations=EVALUATIONS, columns=columns)
    assert {evaluation: rows for (_, evaluation), rows in pairs_of(done).items()} == met


@pytest.mark.nightly  # whole published files; the others here are small ones
def test_styles_and_contradictions(curate: Callable[..., Curation], tmp_path: Path) -> None:
    flan = curate("flan_cot_gsm8k.tsv", columns="prompt=0,response=1", steps="normalize").out / "data.jsonl"
    rows = [json.loads(line) for line in flan.read_text(encoding="utf-8").splitlines()]
    for row in rows[::100]:
        row["messages"][1]["content"] = "7654321"
    altered = tmp_path / "altered.jsonl"
    altered.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for source, prompts in ((flan, 0), (altered, 75)):
        done = curate("gsm8k_train.jsonl", source, steps="consistency")
        found = json.loads((done.out / "consistency.json").read_text(encoding="utf-8"))
        assert found["contradictions"]["prompts"] == prompts
        assert [pair["prompts"] for pair in found["contradictions"]["between"]] == [prompts] * (prompts > 0)
        assert [differing["mark"] for differing in found["differing"]] == ["final_answer"]
    assert f"between {MATERIAL / 'gsm8k_train.jsonl'} and {altered}: 75 prompts" in done.printed
    generated = curate("t0_common_gen_Given_concepts_type_1.jsonl", steps="consistency")
    report = json.loads((generated.out / "consistency.json").read_text(encoding="utf-8"))
    assert report["contradictions"]["prompts"] == 0
