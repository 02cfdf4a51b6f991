"""`--to dpo-start`: what TRL's DPOTrainer starts from: the whole model once, rows of preferences, and settings.

The reference of DPO is the model as it is before the first step, so it is the same weights: DPOTrainer loads them a
second time, or beside an adapter of its own takes the adapter off (TRL 1.16.0). The disk holds them once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage import formats
from tutelage.builders.base_model import start_folder
from tutelage.builders.curation import with_curated_rows
from tutelage.builders.evaluation import prepared_again
from tutelage.builders.export.finished import finished
from tutelage.builders.export.merged import require_mergeable
from tutelage.builders.export.proving import proof_of
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.export.whole_model import fill_whole_folder
from tutelage.builders.renderer import renderer_for
from tutelage.errors import DataError, command
from tutelage.export.model_folder import new_export
from tutelage.export.preference_rows import (
    PreferenceRow,
    RenderedReply,
    UnusableRowError,
    read_preferences,
    rendered_reply,
    require_plain,
    row_line,
)
from tutelage.ledger import Ledger
from tutelage.render import Renderer

ROWS, SETTINGS = "preferences.jsonl", "dpo.yaml"
MOST_ROWS = 1000
"""Of the run's own rows: people who write rejected replies seldom write more."""
FORM = (
    f"Start DPO in this folder with `trl dpo --config {SETTINGS}` (TRL 1.16). The model is its own reference: its "
    f"weights stand here once. The pairs are in {ROWS}; where `rejected` is null, a reply is still to be written, and "
    "TRL does not start."
)


@dataclass(slots=True)
class Preferences:
    """The rows that TRL will read.

    Attributes:
        rows: whose renderings are those of training.
        left_out: why others are not among them, and how many.
        conversations: each rendering, for the proof.
        behind: what the template writes behind a finished reply.
    """

    rows: list[PreferenceRow] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    conversations: list[dict[str, Any]] = field(default_factory=list)
    behind: set[str] = field(default_factory=set)

    @property
    def to_write(self) -> int:
        """Rows without a rejected reply."""
        return sum(row.rejected is None for row in self.rows)


def write_dpo_start(request: ExportRequest) -> Exported:
    """Write `request.out`.

    Raises:
        DataError: no row can be used, or the file of pairs holds something else.
        TutelageError: as of `write_whole_model`.
    """
    require_mergeable(request)
    start = start_folder(request.settings.model, log=request.screen.log)
    renderer = renderer_for(start, request.settings.render)
    preferences = _preferences(request, start, renderer)
    notes = list(_notes(preferences, request, renderer))
    for note in notes:
        request.screen.log(f"note: {note}")
    with new_export(request.out) as scratch:
        lost = fill_whole_folder(request, scratch)
        arguments, has_tools = request.settings.render.template_arguments, any(row.tools for row in preferences.rows)
        lines = (row_line(row, arguments, has_tools=has_tools) for row in preferences.rows)
        (scratch / ROWS).write_text("".join(lines), encoding="utf-8")
        (scratch / SETTINGS).write_text(_settings_text(request), encoding="utf-8")
        proof = proof_of(request, scratch, conversations=preferences.conversations) if request.prompts else None
        exported = finished(request, scratch, proof, form=FORM, lost_in_four_bits=lost, notes=notes)
    counts = {
        "rows": len(preferences.rows),
        "to_write": preferences.to_write,
        "left_out": dict(preferences.left_out),
    }
    return replace(exported, facts={**exported.facts, "preferences": counts})


def _preferences(request: ExportRequest, start: Path, renderer: Renderer) -> Preferences:
    """The rows of the file that was named, or of the run.

    Raises:
        DataError: none of them can be used.
    """
    result = Preferences()
    rows = read_preferences(request.preferences) if request.preferences else _own_rows(request, start, result)
    for row in rows:
        if len(result.rows) == MOST_ROWS and request.preferences is None:
            break
        try:
            if request.preferences is not None:
                _require_pair(row)
            replies = [rendered_reply(conversation, renderer) for conversation in row.conversations]
            _require_length(replies, request.settings.pack.max_seq_length)
        except UnusableRowError as reason:
            result.left_out[str(reason)] += 1
            continue
        rendered = replies[0].conversation
        result.rows.append(replace(row, prompt=rendered.messages[:-1], tools=rendered.tools))
        result.behind |= {renderer.tokenizer.decode(reply.behind_ids.tolist()) for reply in replies}
        for reply in replies:
            result.conversations += _asked(reply)
    if not result.rows:
        raise DataError(
            "No row can be a pair for DPO",
            where=str(request.preferences or "data.validation"),
            found="; ".join(f"{count} times: {why}" for why, count in result.left_out.most_common(3)) or "no row",
            expected="a prompt of plain turns, and replies that the template ends with a stop token",
            fix=f"sample pairs: {command('prefer', request.run, 'PROMPTS', '-o', 'pairs')}, then add --preferences",
        )
    return result


def _require_pair(row: PreferenceRow) -> None:
    if row.rejected is None:
        raise UnusableRowError("its rejected reply is still to be written")
    if row.rejected == row.chosen:
        raise UnusableRowError("both replies are the same")


def _require_length(replies: Iterable[RenderedReply], most: int) -> None:
    if any(reply.tokens > most for reply in replies):
        raise UnusableRowError(f"it is longer than pack.max_seq_length = {most}, where TRL would cut it")


def _asked(reply: RenderedReply) -> list[dict[str, Any]]:
    """Its two renderings by TRL: the prompt alone, and the finished row, whose rest is trained."""
    messages = [{"role": message.role, "content": message.content} for message in reply.conversation.messages]
    prompt, tools = reply.prompt_ids.tolist(), list(reply.conversation.tools) or None
    return [
        {"messages": messages[:-1], "tools": tools, "ids": prompt},
        {"messages": messages, "tools": tools, "ids": [*prompt, *reply.reply_ids.tolist()], "finished": True},
    ]


def _own_rows(request: ExportRequest, start: Path, result: Preferences) -> Iterator[PreferenceRow]:
    """Held-out rows of the run, or where it held none out those that it was trained on, each with its last reply."""
    log = request.screen.log
    with ExitStack() as reading:
        settings = with_curated_rows(request.settings, run_folder=None, log=log, reading=reading)
        data = settings.data
        prepared = prepared_again(request.settings, start, log=log)
        held_out = {example.address for example in prepared.validation}
        if not held_out:
            log("note: the run held no row out, so the prompts are those it was trained on")
        sources = data.validation if data.validation else data.train
        conversations = formats.read(
            sources, ledger=Ledger(), shape=data.format, columns=data.columns, tree_paths=data.tree_paths
        )
        for conversation in conversations:
            if held_out and conversation.address not in held_out:
                continue
            try:
                require_plain(conversation)
            except UnusableRowError as reason:
                result.left_out[str(reason)] += 1
                continue
            *prompt, reply = conversation.messages
            yield PreferenceRow(conversation.address, tuple(prompt), reply.content or "", tools=conversation.tools)


def _notes(preferences: Preferences, request: ExportRequest, renderer: Renderer) -> Iterator[str]:
    if preferences.to_write:
        yield (
            f"{preferences.to_write} of {len(preferences.rows)} rows of {ROWS} wait for a rejected reply: write it, or "
            f"sample pairs with {command('prefer', request.run, request.out / ROWS, '-o', 'pairs')} and export again "
            "with --preferences pairs/preferences.jsonl"
        )
    for why, count in preferences.left_out.most_common():
        yield f"left out, {count} times: {why}"
    for text in sorted(preferences.behind - {""}):
        yield f"behind a reply's end the template writes {text!r}, which this run did not train and DPOTrainer does"
    if renderer.template.uses_date:
        yield "the template prints today's date: DPOTrainer renders the day on which it runs"


def _settings_text(request: ExportRequest) -> str:
    """Settings of `trl dpo`, from this folder as the working folder; what is not named is TRL's usual."""
    settings = request.settings
    code = "trust_remote_code: true\n" if settings.model.trust_remote_code else ""
    return f"""# In this folder: trl dpo --config {SETTINGS}    (TRL 1.16; on a CPU add --use_cpu)
# The reference is the model of this folder as it is now: no second copy is needed, with or without --use_peft.
model_name_or_path: .
{code}datasets:
  - path: json
    data_files: {ROWS}
max_length: {settings.pack.max_seq_length}  # as trained; TRL cuts what is longer
seed: {settings.seed}
output_dir: dpo
report_to: none
"""
