"""The model card of an exported folder: what it was trained on and how, what was measured, and that it was proven.

All texts from settings, data and templates are escaped: a name may hold what Markdown or a page would run.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from tutelage.curate.licenses import is_non_commercial
from tutelage.export.proof import Proof
from tutelage.report.numbers import significant

CARD = "README.md"
_MARKUP = re.compile(r"([\\`*_\[\]|~])")
"""What begins a link, an emphasis, code or another cell within a line."""
_QUOTED_PATH = re.compile(r'"((?:/|~/|[A-Za-z]:\\\\)[^"\n]*)"')
"""An absolute path as TOML quotes it."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card says.

    Attributes:
        title: of the page.
        base: the model that training began with.
        method: how it was trained.
        form: what the folder holds, and how it is loaded.
        base_license: of the base; None where nothing says one.
        license_texts: files of this folder that hold the base's license.
        notice: what the base's license asks to be passed on with what is made of it; empty where there is none.
        licenses: by source of data; None where nothing says one.
        data_sha256: of each file that was read.
        settings: of the run, as TOML.
        measures: headings and rows of the table of before and after; no rows where nothing was measured.
        notes: sentences that belong to it.
        proof: of the folder; None where it was left out.
        files_sha256: of each file of the folder.
    """

    title: str
    base: str
    method: str
    form: str
    base_license: str | None
    license_texts: Sequence[str]
    notice: str
    licenses: Mapping[str, str | None]
    data_sha256: Mapping[str, str]
    settings: str
    measures: tuple[Sequence[str], Sequence[Sequence[str]]]
    notes: Sequence[str]
    proof: Proof | None
    files_sha256: Mapping[str, str]


def card_text(card: ModelCard) -> str:
    """The card as Markdown; its head, which the hub reads, states a base model and a license only where they are known.

    The license of the head is the first non-commercial one of the data, if there is one: the strictest that is stated.
    Of absolute paths only the last part stands there: cards are published, and a path may name a person or a machine.
    """
    parts = [
        _head(card),
        f"# {escaped(card.title)}",
        f"Trained from {escaped(public_name(card.base))} by {escaped(card.method)}. {card.form}",
        "## License of the base",
        _base_license(card),
        "## Data",
        _table(("source", "license"), _license_rows(card.licenses)),
        "Files that were read:",
        _table(("file", "SHA-256"), _file_rows(card.data_sha256)),
    ]
    if card.measures[1]:
        headings, rows = card.measures
        parts += [
            "## Before and after",
            _table([escaped(cell) for cell in headings], [[escaped(cell) for cell in row] for row in rows]),
        ]
    if card.notes:
        parts.append("\n".join(f"- {escaped(note)}" for note in card.notes))
    parts += ["## Is this the model that was trained?", proof_text(card.proof)]
    parts += ["## Settings", _fenced(_QUOTED_PATH.sub(lambda found: json.dumps(public_name(found[1])), card.settings))]
    parts += [
        "## Files of this folder",
        _table(("file", "SHA-256"), _file_rows(card.files_sha256)),
    ]
    return "\n\n".join(parts) + "\n"


def _base_license(card: ModelCard) -> str:
    texts = ", ".join(f"`{name}`" for name in card.license_texts)
    stated = "Not stated" if card.base_license is None else escaped(card.base_license)
    return " ".join(
        [
            f"{stated}{f', in full in {texts}' if texts else ''}.",
            *([f"Notice: {escaped(card.notice)}"] if card.notice.strip() else []),
        ]
    )


def proof_text(proof: Proof | None) -> str:
    """The proof in two sentences."""
    if proof is None:
        return "Nobody looked: it was exported without a proof."
    return (
        f"Yes: loaded as {proof.dtype} in a process of its own and compared with the run's model on "
        f"{sum(proof.prompts.values())} prompts, {proof.tokens:,} tokens. KL {significant(proof.found.kl, 2)} nats a "
        f"token (noise {significant(proof.noise.kl, 2)}), largest difference of two logits "
        f"{significant(proof.found.logit, 2)} (noise {significant(proof.noise.logit, 2)}). Likeliest replies: "
        f"{proof.same_replies} the same, {proof.ties} parted at a tie, {len(proof.flips)} elsewhere. All of it is in "
        "proof.json."
    )


def escaped(text: str) -> str:
    """One line of text that neither Markdown nor a page takes for more than text."""
    return html.escape(_MARKUP.sub(r"\\\1", " ".join(text.split())), quote=True)


def public_name(name: str) -> str:
    """A name as it is, and of an absolute path its last part."""
    path = PureWindowsPath(name)  # which takes both kinds of slashes
    return path.name if path.root or path.drive or name.startswith("~") else name


def _file_rows(files_sha256: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(escaped(public_name(name)), digest) for name, digest in sorted(files_sha256.items())]


def _head(card: ModelCard) -> str:
    from huggingface_hub import ModelCardData

    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["tutelage"]}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", card.base) and not Path(card.base).exists():
        head["base_model"] = card.base
    if any(map(is_non_commercial, card.licenses.values())):
        head |= {"license": "other", "license_name": "non-commercial-data"}
    return f"---\n{ModelCardData(**head).to_yaml().strip()}\n---"


def _license_rows(licenses: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Non-commercial ones first, then those that nobody stated a license of."""

    def rank(source: str) -> int:
        name = licenses[source]
        return 0 if is_non_commercial(name) else 1 if name is None else 2

    def remark(name: str | None) -> str:
        if name is None:
            return "not stated"
        return f"{escaped(name)}, **non-commercial**" if is_non_commercial(name) else escaped(name)

    return [(escaped(public_name(source)), remark(licenses[source])) for source in sorted(licenses, key=rank)]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}toml\n{text.rstrip()}\n{fence}"
