"""A plan for people: a few tables, widest first; every figure can be explained."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.plan.devices import named_gpus
from tutelage.plan.fit import USABLE_MEMORY_FRACTION
from tutelage.plan.memory import Figure, Memory
from tutelage.plan.plan import DataVolume, Plan
from tutelage.plan.rule_of_thumb import DIFFERENCES, rule_of_thumb
from tutelage.plan.seconds import Pace
from tutelage.report.numbers import count, duration, percent

STYLES = {"fits": "green", "with checkpointing": "yellow", "no": "red"}
VERDICT_LABELS = {"fits": "fits", "with checkpointing": "recompute", "no": "no"}


def plan_screen(plan: Plan) -> RenderableType:
    """What it needs, whether that fits, how long it takes, and what would make it fit."""
    sections: list[RenderableType] = [_head(plan), _methods(plan)]
    if plan.alternatives:
        sections.append(_alternatives(plan))
    sections += [_gpus(plan), _long_documents(plan), _rule_of_thumb(plan), _footnotes(plan)]
    return Group(*(line for section in sections for line in (section, Text())))


def explanation(plan: Plan) -> RenderableType:
    """Each figure of the chosen method with its formula and where that comes from."""
    table = Table(title=f"{plan.chosen.method}: where each figure comes from", show_lines=True, title_justify="left")
    table.add_column("figure", style="bold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("formula and source")
    needed = plan.chosen.plain
    for figure in needed.figures:
        table.add_row(figure.name, gigabytes(figure.size_bytes), _formula(figure))
    table.add_row("peak", gigabytes(needed.training_bytes), Text("the sum of these"))
    loading = Text("process + the checkpoint as it is stored + its copy in the precision of the computation")
    table.add_row("loading", gigabytes(needed.loading_bytes), loading)
    if isinstance(plan.pace, Pace):
        table.add_row("time", duration(plan.pace.row_seconds) + " a row", Text(plan.pace.how))
    return table


def gigabytes(size_bytes: int) -> str:
    """Decimal gigabytes, as memory is sold and as the rule of thumb counts: `14.22 GB`."""
    return f"{size_bytes / 1e9:,.2f}\u00a0GB" if size_bytes < 1e11 else f"{size_bytes / 1e9:,.0f}\u00a0GB"


def _head(plan: Plan) -> RenderableType:
    model, workload = plan.model_shape, plan.workload
    grid = Table.grid(padding=(0, 2))
    facts = {
        "model": f"{model.name}: {count(model.parameters)} parameters, "
        f"{model.layers} layers of width {model.hidden_width}",
        "method": f"{workload.method} in {workload.precision}, {count(plan.chosen.traced.trainable)} parameters "
        f"trained ({percent(plan.chosen.traced.trainable / model.parameters)})",
        "row": f"{count(workload.row_tokens)} tokens, documents: {len(workload.document_tokens)}; "
        "one pass forward and back",
        "device": f"{plan.device.name}: {gigabytes(plan.device.memory_bytes)} free "
        f"of {gigabytes(plan.device.total_bytes)}",
    }
    if plan.data_volume is not None:
        facts |= _volume_facts(plan.data_volume)
    facts["time"] = _time(plan)
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _volume_facts(volume: DataVolume) -> dict[str, str]:
    if volume.basis == "counted":
        trained = count(volume.trained_tokens)
        return {
            "data": f"{count(volume.tokens)} tokens an epoch, {trained} of them trained",
            "steps": f"{count(volume.steps)}, about {count(volume.step_tokens)} tokens each",
        }
    bound = "at most" if volume.basis == "published, at most" else "about"
    return {
        "data": f"{count(volume.examples)} rows an epoch, as published; they are not here, and not counted",
        "steps": f"{count(volume.steps)} by that, {bound} {count(volume.step_tokens)} tokens each",
    }


def _time(plan: Plan) -> str:
    if isinstance(plan.pace, str):
        return plan.pace
    speed = plan.workload.row_tokens / plan.pace.row_seconds
    total_seconds = plan.run_seconds(plan.pace)
    row_time = f"{duration(plan.pace.row_seconds)} a row ({speed:,.0f} tokens/s)"
    return (
        f"{row_time}, {plan.pace.how}"
        if total_seconds is None
        else f"{_at_most(plan)}{duration(total_seconds)} for all steps; {row_time}, {plan.pace.how}"
    )


def _at_most(plan: Plan) -> str:
    """Rows that are as long as they can be take as long as they can."""
    is_bound = plan.data_volume is not None and plan.data_volume.basis == "published, at most"
    return "at most " if is_bound else ""


def _methods(plan: Plan) -> Table:
    """Figures down, methods across: it stays readable on 80 columns."""
    table = Table(title=f"Memory by method, GB, on {plan.device.name}", title_justify="left")
    table.add_column("")
    for option in plan.options:
        chosen = option is plan.chosen
        table.add_column(Text(option.method, style="bold reverse" if chosen else "bold"), justify="right")
    for figure in plan.chosen.plain.figures:
        table.add_row(figure.name, *(_gb(option.plain.of(figure.name)) for option in plan.options))
    table.add_section()
    table.add_row("peak", *(_peak(option.plain) for option in plan.options), style="bold")
    table.add_row("recompute", *(_peak(option.recomputed) for option in plan.options))
    verdicts = [option.verdict(plan.device.memory_bytes, gpu=False) for option in plan.options]
    table.add_row(f"in {_gb(plan.device.memory_bytes)}", *(_verdict(verdict) for verdict in verdicts))
    return table


def _verdict(verdict: str) -> Text:
    return Text(VERDICT_LABELS[verdict], style=STYLES[verdict])


def _peak(needed: Memory) -> str:
    return ("*" if needed.loading_bytes > needed.training_bytes else "") + _gb(needed.peak_bytes)


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f}"


def _alternatives(plan: Plan) -> Table:
    table = Table(title="What would make it fit, those first that change least", title_justify="left")
    table.add_column("way")
    table.add_column("peak", justify="right", no_wrap=True)
    table.add_column("fits")
    table.add_column("price")
    for suggestion in plan.alternatives:
        description = Text.assemble((suggestion.what, "bold"), "\n", (suggestion.setting, "dim"))
        table.add_row(
            description,
            gigabytes(suggestion.peak_bytes),
            _verdict("fits" if suggestion.fits else "no"),
            suggestion.cost,
        )
    return table


def _gpus(plan: Plan) -> Table:
    table = Table(title="On one GPU in bf16, GB; time at best (estimated, not measured)", title_justify="left")
    table.add_column("")
    for option in plan.options:
        table.add_column(option.method, justify="right")
    table.add_column(
        f"{plan.workload.method}, time" if plan.data_volume else f"{plan.workload.method}, tokens/s", justify="right"
    )
    table.add_row("peak", *(_gb(option.on_gpu.peak_bytes) for option in plan.options), style="bold")
    table.add_row("recompute", *(_gb(option.on_gpu_recomputed.peak_bytes) for option in plan.options))
    table.add_section()
    for gpu in named_gpus():
        verdicts = [_verdict(option.verdict(gpu.memory_bytes, gpu=True)) for option in plan.options]
        pace = plan.gpu_paces[gpu.name]
        total_seconds = plan.run_seconds(pace)
        speed = (
            f"{_at_most(plan)}{duration(total_seconds)}"
            if total_seconds is not None
            else f"{plan.workload.row_tokens / pace.row_seconds:,.0f}"
        )
        table.add_row(f"{gpu.name}, {gpu.memory_bytes // 10**9} GB", *verdicts, speed)
    return table


def _long_documents(plan: Plan) -> Text:
    lines = []
    for tokens, choice in plan.long_rows.items():
        verdict = "with" if choice.on else "without"
        if choice.on and choice.with_bytes > USABLE_MEMORY_FRACTION * choice.memory_bytes:
            verdict = "not even with"
        lines.append(
            f"A document of {count(tokens)} tokens, {plan.workload.method}: {gigabytes(choice.without_bytes)}, or "
            f"{gigabytes(choice.with_bytes)} with activation checkpointing. Here it runs {verdict} it."
        )
    return Text("\n".join(lines))


def _rule_of_thumb(plan: Plan) -> Table:
    rule = rule_of_thumb(plan.model_shape.parameters)
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
    lines += [f"  - {difference};" for difference in DIFFERENCES]
    lines.append("recompute: with activation checkpointing, which keeps each layer's input and runs the layer again.")
    lines.append(
        f"fits: at most {USABLE_MEMORY_FRACTION:.0%} of the memory. Evaluations that generate text are not counted."
    )
    if any(option.plain.loading_bytes > option.plain.training_bytes for option in plan.options):
        lines.append("*: loading is the fullest moment, not training.")
    lines.append("Every figure's formula and source: --explain.")
    return Text("\n".join(lines), style="dim")


def _formula(figure: Figure) -> Text:
    return Text.assemble(figure.formula, "\n", (figure.source, "dim"))
