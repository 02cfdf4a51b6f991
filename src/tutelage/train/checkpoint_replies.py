"""The checkpoints of a finished run asked the same prompts, one after the other in one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import continued
from tutelage.builders.calibration_data import calibration_for
from tutelage.builders.dataset import Prepared
from tutelage.builders.heldout_prompts import HeldoutPrompt
from tutelage.builders.measuring import opened_replies
from tutelage.builders.model import TrainState, train_state_for
from tutelage.builders.resolved_run import ResolvedRun, resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.config import Settings
from tutelage.distributed.process_group import SINGLE
from tutelage.errors import CheckpointError, cause_of
from tutelage.evaluate.asking import Asking, Served, ask
from tutelage.evaluate.pairwise.pairs import Answered, Replies
from tutelage.evaluate.reply_log import ReplyLog
from tutelage.generate.batch_check import Batching
from tutelage.generate.replies import answered_together
from tutelage.model.adapters.prompt_tuning import without_prompt
from tutelage.model.attention.packed import use_generation_attention
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import read_inputs
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.checkpoint_files import DAMAGE, state_of

BASE = 0
"""The step of the model before training."""
REPLIES = "replies.jsonl"


@dataclass(frozen=True, slots=True)
class AskedRun:
    """A finished run whose checkpoints are asked.

    Attributes:
        settings: its own, with the longest reply that is asked for.
        base: the folder of the model it started from.
        prepared: its data.
        prompts: what is asked.
        folder: where replies are kept as they end, so that none is asked for twice.
    """

    settings: Settings
    base: Path
    prepared: Prepared
    prompts: Sequence[HeldoutPrompt]
    folder: Path

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of the run."""
        return Checkpoints(self.settings.run_folder / run_files.CHECKPOINTS, keep=1)


def checkpoint_replies(asked: AskedRun, names: Mapping[int, str], screen: Screen) -> dict[int, Replies]:
    """What each checkpoint replies to each prompt, by its step.

    Args:
        asked: the run and its prompts.
        names: what a step is called; `BASE` is the model before training.
        screen: told how far it is.

    Raises:
        CheckpointError: a checkpoint is damaged.
        TutelageError: of the kind that fits; the model cannot be loaded.
    """
    resolved, opened = resolve(asked.settings), _Opened()
    replies = {}
    with suppress(OSError):  # the first reply that cannot be kept says so
        asked.folder.mkdir(parents=True, exist_ok=True)
    with screen.counting(f"Replies of {len(names)} models to held-out rows", len(names) * len(asked.prompts)) as done:
        for step in sorted(names):  # the base first, while nothing of the run is in the model
            with closing(_reply_log(asked, step, resolved.precision, screen)) as known:
                texts = _known(asked, known)
                if texts is None:
                    opened.load(asked, resolved, screen)
                    texts = _asked_now(asked, opened, step, known, done)
                else:
                    done(len(texts))
            rows = zip(asked.prompts, texts, strict=True)
            answered = tuple(Answered(prompt.address, prompt.messages, text) for prompt, text in rows)
            replies[step] = Replies(names[step], answered)
    return replies


def known_replies(asked: AskedRun, names: Mapping[int, str], screen: Screen) -> dict[int, Replies] | None:
    """The same, where every reply is there already; None where a model would have to be asked."""
    precision, replies = resolve(asked.settings).precision, {}
    for step in sorted(names) if (asked.folder / REPLIES).is_file() else ():
        with closing(_reply_log(asked, step, precision, screen)) as known:
            texts = _known(asked, known)
        if texts is None:
            return None
        rows = zip(asked.prompts, texts, strict=True)
        replies[step] = Replies(names[step], tuple(Answered(row.address, row.messages, text) for row, text in rows))
    return replies or None


@dataclass(slots=True)
class _Opened:
    """The model, once it is needed, and how it may be asked."""

    state: TrainState | None = None
    batching: Batching | None = None

    def load(self, asked: AskedRun, resolved: ResolvedRun, screen: Screen) -> None:
        if self.state is not None:
            return
        calibration = calibration_for(resolved, asked.prepared, screen)
        longest = longest_rows(resolved, asked.prepared)
        self.state = train_state_for(resolved, asked.base, SINGLE, open_calibration=calibration, longest=longest)
        use_generation_attention(self.state.model)
        alone = asked.settings.evaluate.batch_prompts == 1
        tokenizer = asked.prepared.renderer.tokenizer
        self.batching = Batching("alone") if alone else answered_together(self.state.model, tokenizer)


def _asked_now(asked: AskedRun, opened: _Opened, step: int, known: ReplyLog, done: Any) -> list[str]:
    assert opened.state is not None
    assert opened.batching is not None
    model, evaluate = opened.state.model, asked.settings.evaluate
    if step == BASE:
        model = model if continued(asked.settings) else without_prompt(model)
    else:
        asked.checkpoints.restore_weights(opened.state.optimizer, step=step)
    how = Asking(evaluate.max_new_tokens, evaluate.batch_prompts, opened.batching, done, replies=known)
    served = Served(len(asked.prompts), lambda place: asked.prompts[place].ids)
    return [reply.text for reply in ask(model, asked.prepared.renderer.tokenizer, served, how)]


def _known(asked: AskedRun, known: ReplyLog) -> list[str] | None:
    replies = [known.known.get(known.key(prompt.ids)) for prompt in asked.prompts]
    texts = [reply.text for reply in replies if reply is not None]
    return texts if len(texts) == len(replies) else None


def _reply_log(asked: AskedRun, step: int, precision: str, screen: Screen) -> ReplyLog:
    """Of one checkpoint: what it was asked is kept with the hashes of its weights."""
    weights = read_inputs(asked.settings.run_folder)["base_sha256"] if step == BASE else _weights(asked, step)
    tokenizer = asked.prepared.renderer.tokenizer
    path = asked.folder / REPLIES
    return opened_replies(path, asked.settings, weights, tokenizer, precision=precision, log=screen.log)


def _weights(asked: AskedRun, step: int) -> dict[str, str]:
    folder = asked.checkpoints.weights_folder(step)
    assert folder is not None, "it was there as the steps were listed"
    try:
        return dict(state_of(folder)["sha256"])
    except DAMAGE as error:
        raise CheckpointError(
            "The checkpoint is damaged",
            where=str(folder),
            found=cause_of(error),
            expected="whole files",
            fix="move its folder away; the others can be compared without it",
        ) from error
