"""The figures of benchmarks/train: medians, ratios, checks, kinds of work, and what is read off others' logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmark trains, which needs torch")

import torch
from benchmarks.train.by_tutelage import settings_for, trained_weights
from benchmarks.train.contestants import OURS, TOOLS, Contestant, contestants, python_of
from benchmarks.train.figures import (
    Runs,
    first_loss_spread,
    odd_tokens,
    paired_ratio,
    table,
    tokens_a_second,
    verdict,
)
from benchmarks.train.kinds import KINDS, MODULE, Kind, Operation, is_wrapper, kind_of, seconds_by_kind
from benchmarks.train.limit import Limit, linear_shapes
from benchmarks.train.measured import Measured, Task
from benchmarks.train.profile import operations_of
from benchmarks.train.running_means import losses_of_steps
from benchmarks.train.workload import write_examples, write_rows
from safetensors.torch import save_file

STEP_TOKENS = [100, 300]


def measured(seconds: float, peak_bytes: int, *, loss: float = 1.5, dtype: str = "float32") -> Measured:
    return Measured([9.0, seconds], [loss, 1.0], 400, peak_bytes, dtype, 7, {})


def runs(name: str, *all_of_them: Measured, compared: bool = True) -> Runs:
    tool = OURS if name == OURS else "trl"
    return Runs(Contestant(name, tool, "mixed", compared=compared), list(all_of_them))


FOUR = [
    runs(OURS, measured(1.0, 40), measured(2.0, 50), measured(1.0, 60)),
    runs("masters", measured(2.0, 30), measured(6.0, 30), measured(2.0, 30)),
    runs("rounded", *(measured(1.5, 20, dtype="bfloat16") for _ in range(3))),
    runs("plain", *(measured(0.1, 10) for _ in range(3)), compared=False),
]


def test_speed_leaves_the_first_step_out() -> None:
    assert tokens_a_second([9.0, 2.0], STEP_TOKENS) == 150
    assert tokens_a_second([4.0], STEP_TOKENS) == 25


def test_a_ratio_is_taken_within_each_repeat() -> None:
    assert paired_ratio([10.0, 1.0, 30.0], [5.0, 0.5, 10.0]) == 2.0


def test_ours_is_held_against_the_fastest_and_the_leanest() -> None:
    same = verdict(FOUR, STEP_TOKENS, same_numerics=True)
    assert same is not None
    assert (same.fastest, same.times_as_fast, same.leanest) == ("masters", 2.0, "masters")
    assert same.times_the_memory == pytest.approx(50 / 30)
    every = verdict(FOUR, STEP_TOKENS, same_numerics=False)
    assert every is not None
    assert (every.fastest, every.leanest) == ("rounded", "rounded")
    assert every.times_as_fast == 1.5


def test_without_others_there_is_no_verdict() -> None:
    assert verdict([FOUR[0], FOUR[3]], STEP_TOKENS, same_numerics=False) is None
    assert verdict([FOUR[0], FOUR[2]], STEP_TOKENS, same_numerics=True) is None


def test_disagreement_is_found() -> None:
    odd = runs("odd", measured(1.0, 1, loss=1.6))
    odd.measured[0].tokens = 399
    assert first_loss_spread([*FOUR, odd]) == pytest.approx(0.1)
    assert first_loss_spread(FOUR) == 0
    assert odd_tokens([*FOUR, odd], STEP_TOKENS) == {"odd": 399}


def test_the_table_has_a_line_for_each() -> None:
    head, _, ours, masters, *_ = table(FOUR, STEP_TOKENS).splitlines()
    assert head.count("|") == ours.count("|") == 8
    assert ours.startswith("| tutelage | 300 | 150 to 300 | 1.00 | 0.00 |")
    assert masters.startswith("| masters | 150 | 50 to 150 | 2.00 |")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_tool_is_there_and_ours_is_first(precision: str) -> None:
    found = contestants(precision, TOOLS)  # type: ignore[arg-type] # parametrized by text
    assert found[0].tool == OURS
    assert {one.tool for one in found} == set(TOOLS)
    assert {contestant.tool for contestant in contestants(precision, [OURS, "trl"])} == {OURS, "trl"}  # type: ignore[arg-type] # a plain text


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"environments\.sh"):
        python_of("trl", tmp_path)


def op(name: str, *inside: str, seconds: float = 1.0) -> Operation:
    return Operation(name, inside, seconds)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (op("aten::mm", MODULE + "Linear"), "matrix products"),
        (op("aten::addmm_", "_TrainedCrossEntropy"), "matrix products"),
        (op("aten::mm", "aten::matmul", MODULE + "LlamaAttention"), "matrix products"),
        (op("aten::bmm", MODULE + "LlamaAttention"), "attention"),
        (op("aten::_scaled_dot_product_flash_attention_for_cpu_backward"), "attention"),
        (op("aten::mul", MODULE + "LlamaAttention"), "attention"),
        (op("aten::mul", MODULE + "Linear", MODULE + "LlamaAttention"), "other"),
        (op("aten::copy_", "aten::to", MODULE + "LlamaRMSNorm"), "norms"),
        (op("aten::_fused_rms_norm"), "norms"),
        (op("aten::exp_", "_TrainedCrossEntropy"), "loss"),
        (op("aten::_log_softmax"), "loss"),
        (op("aten::copy_", "Optimizer.step#AdamW.step"), "optimizer"),
        (op("aten::add_", "torch::autograd::AccumulateGrad"), "optimizer"),
        (op("aten::_foreach_norm"), "optimizer"),
        (op("aten::copy_", "aten::_to_copy"), "copies and casts"),
        (op("aten::silu", MODULE + "SiLUActivation"), "other"),
    ],
)
def test_operations_are_of_a_kind(operation: Operation, kind: Kind) -> None:
    assert kind_of(operation) == kind


def test_seconds_are_added_by_kind_and_marks_count_for_none() -> None:
    found = seconds_by_kind([op("aten::mm", seconds=2.0), op("aten::mm", seconds=3.0), op(MODULE + "Linear")])
    assert found == dict.fromkeys(KINDS, 0.0) | {"matrix products": 5.0}


def test_a_gradient_belongs_to_the_module_of_its_forward_operation() -> None:
    class SlowNorm(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.profiler.record_function(MODULE + "SlowNorm"):
                return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    layer, norm = torch.nn.Linear(8, 8, bias=False), SlowNorm()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        norm(layer(torch.ones(4, 8))).tanh().sum().backward()
    operations = operations_of(list(profiler.events()))
    backward = [
        operation
        for operation in operations
        if not is_wrapper(operation) and any("evaluate_function: RsqrtBackward0" in name for name in operation.inside)
    ]
    assert {kind_of(one) for one in backward} == {"norms"}
    assert {kind_of(operation) for operation in operations if operation.name == "aten::mm"} == {"matrix products"}
    assert {kind_of(operation) for operation in operations if operation.name == "aten::tanh_backward"} == {"other"}


def test_the_first_loss_is_read_off_running_means() -> None:
    rows, trained = [1.0, 4.0, 2.0, 2.0], [1, 3]
    running = [1.0, 2.5, (4.0 + 2.0) / 2, 2.0]
    first, second = losses_of_steps(running, trained, accumulated=2)
    assert first == pytest.approx((rows[0] * 1 + rows[1] * 3) / 4)
    assert second == 2.0


def test_the_limit_counts_flop_by_method() -> None:
    limit = Limit(matrix_parameters=100, square_flops=2400.0, model_flops=1200.0)
    assert limit.tokens_a_second("full", limit.model_flops) == 2
    assert limit.tokens_a_second("lora", limit.model_flops) == 3
    assert limit.share("full", 1.0) == (0.5, 0.25)


def test_the_limit_is_of_all_matrices_with_the_head(tiny_model_folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model_folder))
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    looked_up = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    counted = sum(outputs * inputs * count for (outputs, inputs), count in linear_shapes(tiny_model_folder).items())
    assert counted == model.num_parameters() - vectors - looked_up


def test_rows_come_from_arrays_and_lines_alike(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(3)]
    (tmp_path / "array.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("array.json", "lines.jsonl"):
        out = tmp_path / "out.jsonl"
        assert name in write_rows(tmp_path / name, None, 2, out)
        assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == rows[:2]
    with pytest.raises(SystemExit, match="3 rows"):
        write_rows(tmp_path / "array.json", None, 4, tmp_path / "out.jsonl")


def test_trained_weights_are_read_off_the_newest_checkpoint(tmp_path: Path) -> None:
    for step, dtype in (("step-000001", torch.bfloat16), ("step-000004", torch.float32)):
        (tmp_path / step).mkdir()
        save_file({"a": torch.zeros(2, 3, dtype=dtype)}, tmp_path / step / "masters.safetensors")
        save_file({"exp_avg:a": torch.zeros(2, 3)}, tmp_path / step / "moments.safetensors")
    assert trained_weights(tmp_path) == ("float32", 6)


@pytest.fixture
def task(tmp_path: Path, tiny_tokenizer_folder: Path) -> Task:
    rows = [{"instruction": "Where is the blue lamp?", "input": "", "output": "Behind the old shop."}] * 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Task(
        rows=str(tmp_path / "rows.jsonl"),
        examples=str(tmp_path / "examples.jsonl"),
        model_folder=str(tiny_tokenizer_folder),
        prepared_folder=str(tmp_path),
        method="lora",
        numerics="fp32",
        micro_examples=1,
        batch_size=2,
        steps=2,
    )


def test_examples_train_the_reply_through_its_stop(task: Task) -> None:
    workload = write_examples(task, "four rows")
    examples = task.read_examples()
    assert [len(examples[2 * n]["input_ids"]) + len(examples[2 * n + 1]["input_ids"]) for n in range(2)] == list(
        workload.step_tokens
    )
    for example in examples:
        trained = [label for label in example["labels"] if label != -100]
        assert example["labels"][0] == -100
        assert (
            trained == example["input_ids"][-len(trained) :] or trained == example["input_ids"][-len(trained) - 1 : -1]
        )
    assert workload.trained_tokens == sum(label != -100 for example in examples for label in example["labels"])


def test_a_folder_without_the_published_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks gsm8k_train\.jsonl, .* --material names the folder"):
        write_rows(None, tmp_path, 4, tmp_path / "rows.jsonl")


def test_too_few_rows_are_refused(task: Task) -> None:
    task = Task(**{name: getattr(task, name) for name in Task.__dataclass_fields__} | {"steps": 3})
    with pytest.raises(SystemExit, match="6 are needed"):
        write_examples(task, "four rows")


def test_ours_trains_with_the_settings_of_the_task(task: Task, tmp_path: Path) -> None:
    settings = settings_for(task, tmp_path)
    assert settings.train.max_steps == 2
    assert settings.train.batch_size == 2
    assert (settings.lora.rank, settings.lora.target_modules, settings.model.precision) == (16, "all-linear", "fp32")
