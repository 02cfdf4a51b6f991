"""The results as Markdown: totals, a table per template, reasons, and every wrong Example in full."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.masks.pairs import Pair

from tutelage.types import Drop

SHOWN_WRONG = 25
SHOWN_EXAMPLES = 3


def report(pairs: Sequence[Pair], refused: Sequence[tuple[str, Drop]], *, elapsed_seconds: float) -> str:
    """The whole page."""
    templates = len({pair.template for pair in pairs})
    cases = len({pair.case for pair in pairs})
    lines = [
        "# Masks, judged",
        "",
        f"{templates} templates x {cases} conversations, {len(pairs)} pairs in all, in {elapsed_seconds:.0f} s.",
        "",
        *_totals(pairs),
        *_refused(refused),
        *_reasons(pairs),
        *_not_accepted(pairs),
        *_per_template(pairs),
        *_wrong(pairs),
    ]
    return "\n".join(lines) + "\n"


def _totals(pairs: Sequence[Pair]) -> list[str]:
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.setting, pair.tokenizer].append(pair)
        groups[pair.setting, "all"].append(pair)
    lines = [
        "## Totals",
        "",
        "| setting | vocabulary | pairs | proven | WRONG | accepted | of these proven | | not accepted, dropped "
        "| not accepted, proven | policy, dropped | policy, proven | split rows |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (setting, tokenizer), some in sorted(groups.items()):
        count = Counter((one.acceptance, one.verdict) for one in some)
        accepted = [one for one in some if one.acceptance == "accepted"]
        proven = sum(one.verdict == "proven" for one in accepted)
        policies = ("control token", "no reasoning")
        lines.append(
            f"| {setting} | {tokenizer} | {len(some)} | {sum(one.verdict == 'proven' for one in some)} "
            f"| {sum(one.verdict == 'wrong' for one in some)} | {len(accepted)} | {proven} "
            f"| {100 * proven / max(1, len(accepted)):.2f} % | {count['not accepted', 'dropped']} "
            f"| {count['not accepted', 'proven']} | {sum(count[policy, 'dropped'] for policy in policies)} "
            f"| {sum(count[policy, 'proven'] for policy in policies)} | {sum(one.parts > 1 for one in some)} |"
        )
    return [*lines, ""]


def _refused(refused: Sequence[tuple[str, Drop]]) -> list[str]:
    if not refused:
        return []
    rows = [f"| {name} | {drop.reason} | {drop.detail} |" for name, drop in refused]
    return [
        "## Dropped when read, before any template",
        "",
        "| conversation | reason | detail |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _reasons(pairs: Sequence[Pair]) -> list[str]:
    lines = ["## Dropped though the template accepts them (both settings)", ""]
    groups = _grouped(pair for pair in pairs if pair.verdict == "dropped" and pair.acceptance == "accepted")
    for reason, some in groups:
        cases = ", ".join(f"{name} ({n})" for name, n in Counter(one.case for one in some).most_common(6))
        where = ", ".join(f"{name} ({n})" for name, n in Counter(one.template for one in some).most_common(8))
        lines.append(f"- `{reason}`: {len(some)}. Conversations: {cases}. Templates: {where}.")
        lines += [f"  - {one.template} / {one.case} / {one.tokenizer}: {_clean(one.detail)}" for one in _spread(some)]
    return [*lines, ""] if groups else [*lines, "None.", ""]


def _not_accepted(pairs: Sequence[Pair]) -> list[str]:
    lines = ["## Not accepted by the template, and why (default setting, first vocabulary)", ""]
    first = pairs[0].tokenizer if pairs else ""
    some = [
        pair
        for pair in pairs
        if pair.acceptance == "not accepted" and (pair.setting, pair.tokenizer) == ("default", first)
    ]
    kinds = Counter(" ".join(one.why_not.split(" of message")[0].split()[:8]) for one in some)
    lines += [f"- {count}: {kind}" for kind, count in kinds.most_common(25)]
    return [*lines, ""]


def _per_template(pairs: Sequence[Pair]) -> list[str]:
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.template].append(pair)
    lines = [
        "## Each template (all vocabularies and settings)",
        "",
        "| template | proven | wrong | dropped though accepted | policy | not accepted | reasons of drops |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, some in groups.items():
        dropped = [one for one in some if one.verdict == "dropped"]
        reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(one.reason for one in dropped).most_common(4))
        lines.append(
            f"| {name} | {sum(one.verdict == 'proven' for one in some)} "
            f"| {sum(one.verdict == 'wrong' for one in some)} "
            f"| {sum(one.acceptance == 'accepted' for one in dropped)} "
            f"| {sum(one.acceptance in ('control token', 'no reasoning') for one in dropped)} "
            f"| {sum(one.acceptance == 'not accepted' for one in dropped)} | {reasons} |"
        )
    return [*lines, ""]


def _wrong(pairs: Sequence[Pair]) -> list[str]:
    wrong = [pair for pair in pairs if pair.verdict == "wrong"]
    lines = [f"## WRONG: {len(wrong)}", ""]
    for reason, some in _grouped(wrong):
        cases = ", ".join(f"{name} ({n})" for name, n in Counter(one.case for one in some).most_common(8))
        where = ", ".join(f"{name} ({n})" for name, n in Counter(one.template for one in some).most_common(8))
        lines.append(f"- `{reason}`: {len(some)}. Conversations: {cases}. Templates: {where}.")
        shown = some[:SHOWN_WRONG]
        lines += [
            f"  - {one.template} / {one.case} / {one.tokenizer} / {one.setting}: {_clean(one.detail)}" for one in shown
        ]
    return lines


def _grouped(pairs: Iterable[Pair]) -> list[tuple[str, list[Pair]]]:
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.reason].append(pair)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _spread(pairs: Sequence[Pair]) -> list[Pair]:
    """A few that differ in template."""
    return list({pair.template: pair for pair in pairs}.values())[:SHOWN_EXAMPLES]


def _clean(text: str) -> str:
    return " ".join(text.split())[:700]
