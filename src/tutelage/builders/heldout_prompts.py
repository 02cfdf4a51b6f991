"""A run's held-out rows -> prompts that its checkpoints are asked, as they were held out. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage import formats
from tutelage.builders.dataset import Prepared
from tutelage.builders.run_replies import prompt_turns
from tutelage.config import Settings
from tutelage.errors import DataError
from tutelage.formats.data_files import DataFiles
from tutelage.ledger import Ledger
from tutelage.runs.fingerprint import read_inputs
from tutelage.types import Conversation, Example, Message, TokenIds, Turn


@dataclass(frozen=True, slots=True)
class HeldoutPrompt:
    """What stands before the last reply of a held-out row: as a server feeds it, and as people read it."""

    address: str
    ids: TokenIds
    messages: tuple[Message, ...]


def require_same_rows(folder: Path, prepared: Prepared) -> None:
    """Refuse held-out rows that are others than the run held out.

    Raises:
        DataError: they are.
        CheckpointError: what the run began with cannot be read.
    """
    recorded = read_inputs(folder)["examples_sha256"].get("validation")
    if recorded != prepared.examples_sha256["validation"]:
        raise DataError(
            "The held-out rows are others than the run had",
            where=str(folder),
            found="other rows, or another tokenizer or template",
            expected="those that were held out when the run began",
            fix="put the data back as it was",
        )


def heldout_prompts(settings: Settings, prepared: Prepared, *, limit: int, seed: int) -> list[HeldoutPrompt]:
    """The prompts of so many held-out rows, drawn from all.

    Args:
        settings: of the run.
        prepared: its data.
        limit: of how many rows.
        seed: of the draw.

    Raises:
        DataError: the run holds no conversation out.
    """
    row_numbers = prepared.validation.column("row")
    drawn = np.random.default_rng(seed).permutation(np.unique(row_numbers))
    last_turns: list[tuple[Example, Turn]] = []
    for row_number in drawn:
        examples = [prepared.validation[int(index)] for index in np.flatnonzero(row_numbers == row_number)]
        turns = [(example, turn) for example in examples for turn in example.turns if turn.ends_with_stop]
        if turns:
            last_turns.append(max(turns, key=lambda entry: entry[1].message))
        if len(last_turns) == limit:
            break
    if not last_turns:
        raise DataError(
            "No held-out row could be asked about",
            where="data.validation",
            found=f"{len(drawn)} held-out rows" if len(drawn) else "a run without held-out rows",
            expected="conversations that were held out",
            fix="train with data.validation, or with data.validation_ratio such as 0.05",
        )
    texts = _conversations(settings, {str(example.address) for example, _ in last_turns})
    return [_prompt(prepared, example, turn, texts.get(str(example.address))) for example, turn in last_turns]


def _prompt(prepared: Prepared, example: Example, turn: Turn, conversation: Conversation | None) -> HeldoutPrompt:
    """Where its row is not at hand, as of curated rows, people read what the model is fed."""
    ids = example.ids[: turn.prompt_end]
    if conversation is None or turn.message >= len(conversation.messages):
        messages: tuple[Message, ...] = (Message("user", prepared.renderer.tokenizer.decode(ids.tolist()).strip()),)
    else:
        messages = prompt_turns(conversation, turn.message)
    return HeldoutPrompt(str(example.address), ids, messages)


def _conversations(settings: Settings, addresses: set[str]) -> dict[str, Conversation]:
    """The rows at these addresses, as they are written; none of a run that curates first."""
    if "curate" in settings.model_fields_set:
        return {}
    data = settings.data
    files = DataFiles(lambda _note: None).of(data.validation or data.train)
    rows = formats.read(
        [], ledger=Ledger(), shape=data.format, columns=data.columns, files=files, tree_paths=data.tree_paths
    )
    found: dict[str, Conversation] = {}
    for conversation in rows:
        if (address := str(conversation.address)) in addresses:
            found[address] = conversation
        if len(found) == len(addresses):
            break
    return found
