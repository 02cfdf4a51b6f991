"""What would make a run fit, in the order in which one should try it, each with the figure that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tutelage.distributed.fsdp import SHARDED_METHODS, SHARDED_OPTIMIZERS
from tutelage.errors import FitError
from tutelage.plan.devices import Device, Overhead, overheads
from tutelage.plan.memory import Memory, memory
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import Trace, trace
from tutelage.plan.trace_cache import keep_trace, kept_trace, trace_file
from tutelage.plan.workload import Method, Workload
from tutelage.system.allocator import INSTALL

USABLE_MEMORY_FRACTION = 0.9
"""Share of the free memory that a plan may fill: predictions are held to 10 % of what is measured (benchmarks/plan)."""

SMALLEST_ROW = 256
MOST_SHARDS = 64


@dataclass(slots=True)
class Traces:
    """Traces of one model, each made once on a machine."""

    model_shape: ModelShape
    _traces: dict[tuple[Workload, str], Trace] = field(default_factory=dict)

    def of(self, workload: Workload, device: str = "cpu") -> Trace:
        """The trace of `workload`; QLoRA computes as LoRA does, on weights that it dequantizes for each matmul."""
        as_run = replace(workload, method="lora") if workload.method == "qlora" else workload
        as_run = replace(as_run, optimizer="adamw", averaged=False, pulled_to_base=False, held_to_base=False)
        as_run = replace(as_run, double_quantization=True, kept_tokens=0)
        if (as_run, device) not in self._traces:
            self._traces[as_run, device] = self._kept_or_made(as_run, device)
        return self._traces[as_run, device]

    def _kept_or_made(self, workload: Workload, device: str) -> Trace:
        file = trace_file(self.model_shape, workload, device)
        kept = None if file is None else kept_trace(file)
        if kept is not None:
            return kept
        made = trace(self.model_shape, workload, device=device)
        if file is not None:
            keep_trace(file, made)
        return made

    def memory(self, workload: Workload, overhead: Overhead, *, shards: int = 1) -> Memory:
        """The bytes of `workload` on a device."""
        return memory(self.model_shape, workload, self.of(workload, overhead.device), overhead, shards=shards)


def fits(needed: Memory, memory_bytes: int) -> bool:
    """Whether the peak fits with the margin that a prediction needs."""
    return needed.peak_bytes <= USABLE_MEMORY_FRACTION * memory_bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether to recompute activations, with the peaks that decided it."""

    on: bool
    without_bytes: int
    with_bytes: int
    memory_bytes: int

    @property
    def reason(self) -> str:
        """One sentence for the run's screen."""
        gb = [f"{size_bytes / 1e9:.1f} GB" for size_bytes in (self.without_bytes, self.with_bytes, self.memory_bytes)]
        if not self.on:
            return f"activation checkpointing off: {gb[0]} of {gb[2]} free"
        caution = "" if self.with_bytes <= self.memory_bytes else ", which may still be too much"
        return f"activation checkpointing on: {gb[0]} without it, {gb[1]} with it, {gb[2]} free{caution}"


def choose_checkpointing(model_shape: ModelShape, workload: Workload, device: Device) -> Choice:
    """Recompute activations only where a step would not fit without: it costs another forward pass, a third more time.

    Source: Chen et al. 2016 (Training Deep Nets with Sublinear Memory Cost), section 4.
    """
    traces = Traces(model_shape)
    without, recomputed = (
        traces.memory(replace(workload, checkpointing=on), device.overhead).peak_bytes for on in (False, True)
    )
    on = without > USABLE_MEMORY_FRACTION * device.memory_bytes and recomputed < without
    return Choice(on, without, recomputed, device.memory_bytes)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing to do, the peak it gives, whether that fits, and what it changes besides."""

    what: str
    setting: str
    peak_bytes: int
    fits: bool
    cost: str


def suggestions(traces: Traces, workload: Workload, overhead: Overhead, memory_bytes: int) -> tuple[Suggestion, ...]:
    """Ways to need less than `workload` does, those first that change least of what is learned.

    Args:
        traces: of the model.
        workload: what was asked for.
        overhead: of the device.
        memory_bytes: what it has to fit in.
    """

    def suggestion(what: str, setting: str, changed: Workload, cost: str, *, shards: int = 1) -> Suggestion:
        needed = traces.memory(changed, overhead, shards=shards)
        return Suggestion(what, setting, needed.peak_bytes, fits(needed, memory_bytes), cost)

    candidates = [suggestion(*change) for change in _single_changes(workload)]
    if overhead == overheads()["cpu"]:
        needed = traces.memory(workload, overheads()["cpu_tcmalloc"])
        cost_text = "nothing: it is faster, too; the same mathematics"
        candidates.insert(0, Suggestion("tcmalloc", INSTALL, needed.peak_bytes, fits(needed, memory_bytes), cost_text))
    candidates += [suggestion(*change) for change in _combined_changes(workload)]
    if workload.method not in SHARDED_METHODS or workload.optimizer not in SHARDED_OPTIMIZERS:
        return tuple(candidates)
    recomputed = replace(workload, checkpointing=True)
    for shards in _powers_of_two():
        candidate = suggestion(
            f"{workload.method}, checkpointing, sharded over {shards} devices",
            f"torchrun --nproc-per-node {shards}",
            recomputed,
            "needs the devices; the same mathematics",
            shards=shards,
        )
        if candidate.fits or shards == MOST_SHARDS:
            candidates.append(candidate)
            break
    return tuple(candidates)


def require_fit(needed: Memory, device: Device, alternatives: tuple[Suggestion, ...]) -> None:
    """Stop before anything is loaded where the peak is above what is free.

    Raises:
        FitError: with the first way that fits.
    """
    if needed.peak_bytes <= device.memory_bytes:
        return
    remedy = next((alternative for alternative in alternatives if alternative.fits), None)
    raise FitError(
        "This run does not fit in memory",
        where=device.name,
        found=f"{needed.peak_bytes / 1e9:.1f} GB needed, {device.memory_bytes / 1e9:.1f} GB free",
        expected="a peak below what is free",
        fix="use a smaller model"
        if remedy is None
        else f"{remedy.what}: {remedy.setting} ({remedy.peak_bytes / 1e9:.1f} GB)",
    )


_Change = tuple[str, str, Workload, str]


def _single_changes(workload: Workload) -> Iterator[_Change]:
    if not workload.checkpointing:
        yield _checkpointing(workload)
    if max(workload.document_tokens) < workload.row_tokens:
        half_row_tokens = max(SMALLEST_ROW, *workload.document_tokens, workload.row_tokens // 2)
        if half_row_tokens < workload.row_tokens:
            yield (
                "smaller rows",
                f"pack.row_tokens={half_row_tokens}",
                workload.with_row(half_row_tokens),
                "a little slower; the same mathematics",
            )
    if workload.method == "full" and workload.optimizer == "adamw":
        yield (
            "8-bit optimizer",
            "train.optimizer=adamw_8bit",
            replace(workload, optimizer="adamw_8bit"),
            "moments rounded to 8 bits",
        )
    if workload.method == "full":
        yield ("LoRA", "model.method=lora", replace(workload, method="lora"), "learns less (Biderman et al. 2024)")
    if workload.method in ("full", "lora"):
        yield ("QLoRA", "model.method=qlora", replace(workload, method="qlora"), "base rounded to 4 bits; slower")


def _combined_changes(workload: Workload) -> Iterator[_Change]:
    if workload.method == "full":
        both = replace(workload, optimizer="adamw_8bit", checkpointing=True)
        yield ("8-bit optimizer and checkpointing", "both of these", both, "both of these")
    adapter_methods: tuple[tuple[Method, str], ...] = (("lora", "LoRA"), ("qlora", "QLoRA"))
    for method, name in adapter_methods:
        if workload.method == "full" or (workload.method == "lora" and method == "qlora"):
            setting = f"model.method={method} train.activation_checkpointing=on"
            changed = replace(workload, method=method, checkpointing=True)
            yield (f"{name} and checkpointing", setting, changed, "both of these")


def _checkpointing(workload: Workload) -> _Change:
    return (
        "activation checkpointing",
        "train.activation_checkpointing=on",
        replace(workload, checkpointing=True),
        "about a third more time; the same mathematics",
    )


def _powers_of_two() -> Iterator[int]:
    shards = 2
    while shards <= MOST_SHARDS:
        yield shards
        shards *= 2
