"""Runs that measure choices, general text and losses by document: as transformers has it, resumed, in two."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.cli_process import launch
from tutelage.errors import DataError
from tutelage.evaluate import likelihoods
from tutelage.render import Tokenizer
from tutelage.runs import folder as run_files
from tutelage.runs.losses import loss_measures_in
from tutelage.runs.multiple_choice import COUNTED, WAYS, choice_measure_in
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
QUICK = ("model.precision=fp32", "model.method=full", "train.max_steps=4", "evaluate.max_new_tokens=4")
GENERAL = [
    {"prompt": "What is 2 + 2?", "checks": [{"kind": "contains_any", "values": ["4"]}], "reference": "It is 4."},
    {"prompt": "What did she lose?", "choices": ["the blue lamp", "order 4711", "a refund?"], "answer": 1},
    {"prompt": "Say something.", "checks": [{"kind": "min_words", "count": 1}], "reference": "Hello."},
    {"prompt": "How many?", "choices": ["1", "10"], "answer": "10"},
    {"prompt": "Who?", "choices": ["Nobody", "Our team", "A driver", "My sister"], "answer": 0},
]
TEXTS = ("Every student asks for the manual. Nobody has lost it.\n\nNot even I.", "Übung macht den Meister.\n")
ROWS = ({"text": "The old shop would like to order two tickets, please."}, {"text": "one\n  two\n  three"})


def with_sets(folder: Path) -> tuple[str, ...]:
    """Overrides that name a general set with all kinds of rows, and general texts of two forms."""
    (folder / "texts").mkdir(parents=True)
    (folder / "mixed.jsonl").write_text("\n".join(map(json.dumps, GENERAL)), encoding="utf-8")
    for number, text in enumerate(TEXTS):
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    texts = json.dumps([str(folder / "texts"), str(folder / "rows.jsonl")])
    return (*QUICK, f"evaluate.general={json.dumps([str(folder / 'mixed.jsonl')])}", f"evaluate.general_text={texts}")


def own_loss(model: Any, ids: list[int], *, given: int) -> float:
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -float(sum(logprobs[place - 1, ids[place]] for place in range(given, len(ids))))


def test_losses_and_choices_of_a_run(train_tiny: TrainTiny, tiny_model_folder: Path, tmp_path: Path) -> None:
    finished = train_tiny(*with_sets(tmp_path / "sets"))

    losses, choices = loss_measures_in(finished.result), choice_measure_in(finished.result)
    tokenizer = Tokenizer.load(tiny_model_folder)
    tuned = AutoModelForCausalLM.from_pretrained(finished.folder / "model").eval()
    assert set(losses) == {"heldout", "general_text", "references"}
    texts = [*TEXTS, *(row["text"] for row in ROWS)]
    encoded = tokenizer.encode(texts)
    text = losses["general_text"].all
    assert text.per_token.after is not None
    assert text.per_byte is not None
    assert text.per_byte.after is not None
    nats = sum(own_loss(tuned, ids, given=1) for ids in encoded)
    assert text.per_token.after.value == pytest.approx(nats / sum(len(ids) - 1 for ids in encoded), rel=1e-4)
    firsts = sum(len(tokenizer.decode(ids[:1]).encode()) for ids in encoded)
    spelled = sum(len(one.encode()) for one in texts) - firsts
    assert text.per_byte.after.value == pytest.approx(nats / spelled, rel=1e-4)
    assert text.documents == 4
    assert [Path(name).name for name in losses["general_text"].sources] == ["rows.jsonl", "0.txt", "1.txt"]
    replies = [
        tokenizer.encode([prompt, prompt + f"{item['reference']}<|im_end|>"])
        for item in (GENERAL[0], GENERAL[2])
        for prompt in [f"<|im_start|>user\n{item['prompt']}<|im_end|>\n<|im_start|>assistant\n"]
    ]
    nats = sum(own_loss(tuned, whole, given=len(prompt)) for prompt, whole in replies)
    references = losses["references"].all.per_token.after
    assert references is not None
    assert references.value == pytest.approx(
        nats / sum(len(whole) - len(prompt) for prompt, whole in replies), rel=1e-4
    )
    assert choices is not None
    assert (choices.items, choices.chance) == (3, pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3))
    assert set(choices.before) == set(choices.after) == set(choices.shares) == set(WAYS)
    heldout = losses["heldout"].all.per_token
    assert heldout.before is not None
    assert heldout.before.value == pytest.approx(finished.result["before"]["heldout_loss"], rel=1e-6)
    assert heldout.change is not None
    assert heldout.change.verdict == "better"


def test_the_share_of_the_general_set_counts_choices_by_bytes(train_tiny: TrainTiny, tmp_path: Path) -> None:
    result = train_tiny(*with_sets(tmp_path / "sets")).result

    share = result["uncertainty"]["shares"]["general"]
    assert share["items"] == len(GENERAL)
    for side in ("before", "after"):
        passed = result[side]["general"] * len(GENERAL) - result["multiple_choice"][side][COUNTED] * 3
        assert passed == pytest.approx(round(passed))
        assert 0 <= round(passed) <= 2
        assert share[side]["low"] <= result[side]["general"] <= share[side]["high"]


def test_choices_count_in_capabilities_and_are_named_where_they_were_lost(
    train_tiny: TrainTiny, tmp_path: Path
) -> None:
    checks = [{"kind": "min_words", "count": 1}]
    rows: list[dict[str, Any]] = [
        {"prompt": f"Say {n}.", "checks": checks, "topic": ("words", "facts")[n % 2]} for n in range(20)
    ]
    learned = '{"item": "lamp", "count": 1, "urgent": true}'
    asked = {"choices": ["Nobody pays for the manual.", learned], "answer": 0, "topic": "facts"}
    rows += [{"prompt": f"Which {n}?", "id": f"c{n}"} | asked for n in range(12)]
    path = tmp_path / "topics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    longer = ("train.max_steps=10", "train.learning_rate=0.02")
    result = train_tiny(*QUICK, *longer, f'evaluate.general=["{path}"]').result

    capabilities = result["uncertainty"]["capabilities"]
    assert {name: share["items"] for name, share in capabilities.items()} == {"words": 10, "facts": 22}
    for side in ("before", "after"):
        facts = round(22 * result[side]["capabilities"]["facts"])
        assert round(32 * result[side]["general"]) == facts + round(10 * result[side]["capabilities"]["words"])
        measured = result["multiple_choice"]
        for way, share in measured[side].items():
            assert measured[f"above_{side}"][way] == pytest.approx((share - 0.5) / 0.5)
    moved, change = result["transitions"], result["uncertainty"]["shares"]["general"]["change"]
    for kind, count in (("lost", change["broken"]), ("gained", change["fixed"])):
        assert sum(map(len, moved[kind].values())) == count
    lost = [item for item in moved["lost_items"] if item["id"].startswith("c")]
    assert lost, "the choice that looks like a trained reply weighs more by now"
    assert {item["after"] for item in lost} == {learned}
    assert {item["reference"] for item in lost} == {asked["choices"][0]}


def test_a_resumed_run_has_what_its_first_part_measured(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], tmp_path: Path
) -> None:
    overrides = (*with_sets(tmp_path / "sets"), "train.checkpoint_every=1")
    whole = train_tiny(*overrides, where="whole")
    stop_after(2)
    stopped = train_tiny(*overrides)
    before = (stopped.folder / run_files.BEFORE).read_bytes()
    stop_after(None)

    resumed = train_tiny(*overrides, resume=True)

    assert (resumed.folder / run_files.BEFORE).read_bytes() == before
    assert resumed.result["multiple_choice"] == whole.result["multiple_choice"]
    for place in ("general_text", "references"):
        assert resumed.result["losses"][place] == whole.result["losses"][place]
    assert resumed.result["losses"]["heldout"]["all"] == whole.result["losses"]["heldout"]["all"]


def test_what_fails_is_named_and_takes_nothing_else_along(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no room")

    monkeypatch.setattr(likelihoods, "score_choices", failing)
    result = train_tiny(*with_sets(tmp_path / "sets")).result

    assert result["unmeasured"] == {side: {"choices": "no room"} for side in ("before", "after")}
    assert result["multiple_choice"] == {}
    assert result["after"]["general"] is None, "the share would be one of other items"
    assert "general" not in result["uncertainty"]["shares"]
    assert set(result["losses"]) == {"heldout", "general_text", "references"}


@pytest.mark.parametrize("parallel", [pytest.param("replicate", marks=pytest.mark.nightly), "shard"])
def test_two_processes_measure_what_one_does(
    train_tiny: TrainTiny, tiny_recipe: Callable[[Path], Path], tmp_path: Path, parallel: str
) -> None:
    overrides = (*with_sets(tmp_path / "sets"), "train.learning_rate=0.0001", "evaluate.divergence_prompts=0")
    recipe = tiny_recipe(tmp_path / "two")

    done = launch(
        "-m", "tutelage", "train", str(recipe), *overrides, f"model.parallel={parallel}", torchrun=2, limit_seconds=120
    )

    assert done.returncode == 0, done.stderr[-3000:]
    result = run_files.read_json(tmp_path / "two" / "runs" / "tiny" / "result.json")
    alone = train_tiny(*overrides, where="alone").result
    assert result["unmeasured"] == {}
    two, one = loss_measures_in(result), loss_measures_in(alone)
    assert set(two) == set(one)
    for place, measure in one.items():
        assert two[place].all.documents == measure.all.documents
        for side in ("before", "after"):
            found, expected = (asdict(losses.all.per_token)[side] for losses in (two[place], measure))
            assert found == pytest.approx(expected, rel=2e-3)
    assert choice_measure_in(result) == choice_measure_in(alone)


def test_a_row_with_choices_and_checks_is_refused(train_tiny: TrainTiny, tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text(json.dumps(GENERAL[1] | {"checks": [{"kind": "plain_text"}]}), encoding="utf-8")

    with pytest.raises(DataError, match="cannot be read") as caught:
        train_tiny(*QUICK, f"evaluate.general={json.dumps([str(path)])}")

    assert "not both" in str(caught.value.found)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("short.txt", b"\xc3\x9c", "tokens"),
        ("latin.txt", b"caf\xe9 is not UTF-8, and the rest of it is", "byte 3"),
        ("turns.jsonl", b'{"messages": [{"role": "user", "content": "Hi"}]}\n', ""),
        ("holes.jsonl", b'{"text": "Nobody has lost the manual."}\n{"text": 7}\n', "text"),
    ],
)
def test_general_texts_that_cannot_be_predicted_are_refused(
    train_tiny: TrainTiny, tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError) as caught:
        train_tiny(*QUICK, f"evaluate.general_text={json.dumps([str(tmp_path / name)])}")

    assert name in str(caught.value.where)
    assert found in str(caught.value.found)


def test_a_long_text_is_cut_and_its_bytes_with_it(train_tiny: TrainTiny, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("My sister asks for the manual. " * 500, encoding="utf-8")

    result = train_tiny(
        *QUICK, "pack.max_seq_length=200", f"evaluate.general_text={json.dumps([str(tmp_path / 'long.txt')])}"
    ).result

    text = loss_measures_in(result)["general_text"].all
    assert text.tokens == 199
    assert 199 <= text.bytes < 31 * 200
    assert text.per_token.change is not None
    assert text.per_token.change.verdict == "not shown", "one document"
    assert text.per_token.after is not None
    assert math.isfinite(text.per_token.after.value)
