"""A plan for people: a few tables, widest first; every figure can be explained."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.plan.fit import ROOM_SHARE
from tutelage.plan.machine import named_gpus
from tutelage.plan.memory import Figure, Memory
from tutelage.plan.rule import DIFFERENCES, rule_of_thumb
from tutelage.plan.seconds import Pace
from tutelage.plan.whole import Option, Plan
from tutelage.report.figures import count, duration, percent

STYLES = {"fits": "green", "with checkpointing": "yellow", "no": "red"}
WORDS = {"fits": "fits", "with checkpointing": "recompute", "no": "no"}


def plan_screen(plan: Plan) -> RenderableType:
    """What it needs, whether that fits, how long it takes, and what would make it fit."""
    parts: list[RenderableType] = [_head(plan), _methods(plan)]
    if plan.chosen.verdict(plan.device.memory_bytes, gpu=False) != "fits":
        parts.append(_ways(plan))
    parts += [_gpus(plan), _long(plan), _rule(plan), _footnotes(plan)]
    return Group(*parts)


def short_plan(plan: Plan) -> RenderableType:
    """Two lines for a dry run."""
    needed, device = plan.chosen.plain, plan.device
    verdict = plan.chosen.verdict(device.memory_bytes, gpu=False)
    text = f"{gigabytes(needed.peak_bytes)} at the peak, {gigabytes(device.memory_bytes)} free: {verdict}"
    return Text.assemble(("memory  ", "bold"), (text, STYLES[verdict]), "; more: tutelage plan")


def explanation(plan: Plan) -> RenderableType:
    """Each figure of the chosen method with its formula and where that comes from."""
    table = Table(title=f"{plan.chosen.method}: where each figure comes from", show_lines=True, title_justify="left")
    table.add_column("figure", style="bold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("formula and source")
    needed = plan.chosen.plain
    for one in needed.figures:
        table.add_row(one.name, gigabytes(one.size_bytes), _formula(one))
    table.add_row("peak", gigabytes(needed.training_bytes), Text("the sum of these"))
    loading = Text("process + the checkpoint's file as it is mapped + its copy, before the first step")
    table.add_row("loading", gigabytes(needed.loading_bytes), loading)
    if isinstance(plan.pace, Pace):
        table.add_row("time", duration(plan.pace.row_seconds) + " a row", Text(plan.pace.how))
    return table


def gigabytes(size_bytes: int) -> str:
    """Decimal gigabytes, as memory is sold and as the rule of thumb counts: `14.22 GB`."""
    return f"{size_bytes / 1e9:,.2f}\u00a0GB" if size_bytes < 1e11 else f"{size_bytes / 1e9:,.0f}\u00a0GB"


def _head(plan: Plan) -> RenderableType:
    model, work = plan.blueprint, plan.work
    grid = Table.grid(padding=(0, 2))
    facts = {
        "model": f"{model.name}: {count(model.parameters)} parameters, {model.layers} layers, {model.hidden_width} wide",
        "method": f"{work.method} in {work.precision}, {count(_trainable(plan))} parameters trained "
        f"({percent(_trainable(plan) / model.parameters)})",
        "row": f"{count(work.row_tokens)} tokens in {len(work.document_tokens)} documents, forward and backward at once",
        "device": f"{plan.device.name}: {gigabytes(plan.device.memory_bytes)} free of {gigabytes(plan.device.total_bytes)}",
    }
    if plan.amount is not None:
        facts["data"] = f"{count(plan.amount.tokens)} tokens an epoch, {count(plan.amount.trained_tokens)} of them trained"
        facts["steps"] = f"{count(plan.amount.steps)}, about {count(plan.amount.step_tokens)} tokens each"
    facts["time"] = _time(plan)
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _trainable(plan: Plan) -> int:
    if plan.work.method == "prompt":
        return plan.work.virtual_tokens * plan.blueprint.hidden_width
    return plan.chosen.traced.trainable


def _time(plan: Plan) -> str:
    if isinstance(plan.pace, str):
        return plan.pace
    speed = plan.work.row_tokens / plan.pace.row_seconds
    whole = plan.run_seconds(plan.pace)
    said = f"{duration(plan.pace.row_seconds)} a row ({speed:,.0f} tokens/s)"
    return f"{said}, {plan.pace.how}" if whole is None else f"{duration(whole)} for all steps; {said}, {plan.pace.how}"


def _methods(plan: Plan) -> Table:
    free = plan.device.memory_bytes
    table = Table(title=f"Peak memory by method, on {plan.device.name}", title_justify="left")
    table.add_column("GB", style="bold")
    for name in ("weights", "masters", "gradients", "moments", "activations", "logits", "other", "peak", "recompute"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for option in plan.options:
        needed = option.plain
        other = needed.of("workspace") + needed.of("process") + needed.of("allocator")
        named = ("weights", "masters", "gradients", "moments", "activations", "logits")
        cells = [_gb(needed.of(name)) for name in named] + [_gb(other)]
        verdict = option.verdict(free, gpu=False)
        style = "bold" if option is plan.chosen else ""
        peaks = [_peak(needed), _peak(option.recomputed)]
        table.add_row(option.method, *cells, *peaks, Text(WORDS[verdict], style=STYLES[verdict]), style=style)
    return table


def _peak(needed: Memory) -> str:
    return _gb(needed.peak_bytes) + ("*" if needed.loading_bytes > needed.training_bytes else "")


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f}"


def _ways(plan: Plan) -> Table:
    table = Table(title="What would make it fit, those first that change least", title_justify="left")
    for name in ("way", "setting"):
        table.add_column(name)
    table.add_column("peak", justify="right", no_wrap=True)
    table.add_column("fits")
    table.add_column("price")
    for one in plan.ways:
        said = "fits" if one.fits else "no"
        row = (one.what, Text(one.setting), gigabytes(one.peak_bytes), Text(said, style=STYLES[said]), one.cost)
        table.add_row(*row)
    return table


def _gpus(plan: Plan) -> Table:
    table = Table(title="On one GPU, bf16 (estimated, not measured)", title_justify="left")
    table.add_column("GPU", style="bold")
    for option in plan.options:
        table.add_column(option.method, justify="right")
    table.add_column(f"{plan.work.method}, time" if plan.amount else f"{plan.work.method}, tokens/s", justify="right")
    for gpu in named_gpus():
        cells = [_on(option, gpu.memory_bytes) for option in plan.options]
        pace = plan.gpu_paces[gpu.name]
        whole = plan.run_seconds(pace)
        speed = duration(whole) if whole is not None else f"{plan.work.row_tokens / pace.row_seconds:,.0f}"
        table.add_row(f"{gpu.name}, {gpu.memory_bytes // 10**9} GB", *cells, speed)
    return table


def _on(option: Option, memory_bytes: int) -> Text:
    verdict = option.verdict(memory_bytes, gpu=True)
    needed = option.on_gpu_recomputed if verdict == "with checkpointing" else option.on_gpu
    return Text(f"{_gb(needed.peak_bytes)} {WORDS[verdict]}", style=STYLES[verdict])


def _long(plan: Plan) -> RenderableType:
    table = Table(title=f"One long document, {plan.work.method}, on {plan.device.name}", title_justify="left")
    table.add_column("tokens", justify="right", style="bold")
    for name in ("peak", "recompute"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("checkpointing")
    for tokens, one in plan.long_rows.items():
        word = "on" if one.on else "off"
        if one.on and one.with_bytes > ROOM_SHARE * one.memory_bytes:
            word = "on, and too much"
        table.add_row(count(tokens), gigabytes(one.without_bytes), gigabytes(one.with_bytes), word)
    return table


def _rule(plan: Plan) -> Table:
    rule = rule_of_thumb(plan.blueprint.parameters)
    table = Table(title="The usual rule of thumb, and this engine on a GPU in bf16", title_justify="left")
    for name in ("method", "the rule says"):
        table.add_column(name)
    for name in ("rule", "engine"):
        table.add_column(name, justify="right", no_wrap=True)
    for option in plan.options:
        size = rule.size_bytes[option.method]
        table.add_row(option.method, rule.text(option.method), gigabytes(size), gigabytes(option.on_gpu.peak_bytes))
    return table


def _footnotes(plan: Plan) -> Text:
    lines = ["The rule differs in that"]
    lines += [f"  - {one};" for one in DIFFERENCES]
    lines.append("recompute: with activation checkpointing, which keeps each layer's input and runs the layer again.")
    lines.append(f"fits: at most {ROOM_SHARE:.0%} of the memory. Evaluations that generate text are not counted.")
    if any(one.plain.loading_bytes > one.plain.training_bytes for one in plan.options):
        lines.append("*: loading is the fullest moment, not training.")
    lines.append("Every figure's formula and source: --explain.")
    return Text("\n".join(lines), style="dim")


def _formula(one: Figure) -> Text:
    return Text.assemble(one.formula, "\n", (one.source, "dim"))
