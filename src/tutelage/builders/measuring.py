"""A run's model, before and after training -> what it is measured at; its replies are kept while they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from tutelage.builders.model import TrainState
from tutelage.builders.named_adapters import NamedAdapter
from tutelage.builders.resolved_run import resolve
from tutelage.builders.trained_model import TrainedModel
from tutelage.config import Settings
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import CheckpointError, command
from tutelage.evaluate.harness.asking import with_tasks
from tutelage.evaluate.likelihoods import with_likelihoods
from tutelage.evaluate.reply_log import NOT_KEPT, ReplyLog, delete_replies
from tutelage.evaluate.suite import EvalResult, EvalSuite, run_suite
from tutelage.model.checksums import model_sha256
from tutelage.render import Renderer, Tokenizer
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import deciding_settings, read_inputs
from tutelage.runs.unchecked import unchecked_notes
from tutelage.system.files import cache_folder

MEASURES = {
    "heldout_loss": "the held-out loss",
    "task": "the task",
    "general": "the general set",
    "choices": "the questions with choices",
    "general_text": "the loss on general text",
    "references": "the loss on references of the general set",
    "lm_eval": "the tasks of lm-eval",
}
"""What `EvalResult.failed` names, for people."""

RepliesOf: TypeAlias = Callable[[str], ReplyLog]
"""Opens the replies of one of a run's models, by its name."""


def run_suite_on_ranks(
    settings: Settings,
    train_state: TrainState,
    model: Any,
    renderer: Renderer,
    eval_suite: EvalSuite,
    *,
    title: str,
    kept: tuple[str, Mapping[str, str]],
    screen: Screen,
    again: bool = True,
) -> EvalResult:
    """Measure the model; every process gets all that is found. What fails is said, left out, and named in the result.

    Args:
        settings: the run's.
        train_state: its processes, all of which must call this, and its precision.
        model: that is trained, or the same before.
        renderer: makes the served prompts of the general set.
        eval_suite: what to ask.
        title: when this is.
        kept: the file in the run's folder that takes replies as they end and has those not to ask for again, and the
            hashes of the model's files.
        screen: told what happens.
        again: a resume would measure again what fails.
    """
    strategy = train_state.strategy
    replies = opened_replies(
        settings.run_folder / kept[0], settings, kept[1], renderer.tokenizer,
        precision=train_state.precision, process_group=strategy.process_group, log=screen.log,
    )  # fmt: skip
    how: dict[str, Any] = {
        "unsharded": nullcontext if strategy.fsdp_root is None else strategy.fsdp_root.unsharded,
        "process_group": strategy.process_group,
        "tolerate_failures": True,
    }
    asking = _asking_line(eval_suite, len(replies.known), title, screen)
    with screen.counting(asking, eval_suite.replies + eval_suite.asked_again) as done:
        eval_result = run_suite(
            model,
            renderer,
            eval_suite,
            done=lambda count: done(count * strategy.process_group.size),
            row_loss=strategy.row_loss,
            attention=strategy.architecture.attention,
            log=screen.log,
            kept=replies,
            **how,
        )
    eval_result = with_likelihoods(eval_result, model, renderer, eval_suite, strategy.architecture, **how)
    eval_result = with_tasks(
        eval_result, model, renderer, eval_suite, strategy.architecture, seed=settings.seed, log=screen.log, **how
    )
    replies.close()
    _say_what_is_missing(eval_result, title, settings if again else None, screen)
    return eval_result


def _asking_line(eval_suite: EvalSuite, known: int, title: str, screen: Screen) -> str:
    """What stands beside the bar of a measurement; what need not be asked is said before it."""
    if eval_suite.replies == 0 and eval_suite.heldout_rows:
        screen.log(f"{title}: held-out loss")
    if known:
        screen.log(f"{title}: {known} replies are there from before and are not asked for again")
    twice = f", {eval_suite.asked_again} of them twice" if eval_suite.asked_again else ""
    return f"{title}: asking {eval_suite.replies} prompts{twice}"


def _say_what_is_missing(eval_result: EvalResult, title: str, settings: Settings | None, screen: Screen) -> None:
    for note in unchecked_notes({title: eval_result.unchecked}):
        screen.log(note)
    remedy = "" if settings is None else f" Once it can be: {command('train', '--resume', settings.run_folder)}"
    for name, cause in eval_result.failed.items():
        screen.log(f"{title}: {MEASURES[name]} could not be measured and is left out ({cause}).{remedy}")


def opened_replies(
    path: Path,
    settings: Settings,
    weights: Mapping[str, str],
    tokenizer: Tokenizer,
    *,
    precision: str,
    log: Callable[[str], None],
    process_group: ProcessGroup = SINGLE,
) -> ReplyLog:
    """Replies that are kept in a run's folder; those of the same model, asked in the same way, are there already.

    Args:
        path: of the file.
        settings: the run's: how its model is loaded, and how long a reply may be.
        weights: hashes of all files that the model was loaded from, by name.
        tokenizer: its stop tokens end a reply.
        precision: what the model computes in.
        log: told where none can be kept.
        process_group: processes that share the prompts; all must open it.
    """
    asked: dict[str, Any] = {
        "model": deciding_settings(settings)["model"],
        "weights": dict(weights),
        "precision": precision,
        "stop_ids": sorted(tokenizer.stop_ids),
        "max_new_tokens": settings.evaluate.max_new_tokens,
    }
    return ReplyLog(path, asked=asked, process_group=process_group, log=log)


def forget_replies(folder: Path) -> None:
    """Delete the replies that a run kept while it asked: `before.json` and `after.json` have them all."""
    for name in (run_files.REPLIES_BEFORE, run_files.REPLIES_AFTER, run_files.REPLIES_WHILE_TRAINING):
        delete_replies(folder / name)


def not_kept(_name: str) -> ReplyLog:
    """Replies are not kept, whichever model gives them."""
    return NOT_KEPT


@contextmanager
def kept_while_evaluating(
    folder: Path,
    trained_model: TrainedModel,
    *,
    adapters: Sequence[NamedAdapter] = (),
    log: Callable[[str], None],
) -> Iterator[RepliesOf]:
    """Yield what opens the replies of each of a run's models, which are deleted when the block has come to its end.

    Args:
        folder: the run's, where they are kept.
        trained_model: the models.
        adapters: those that were added by name.
        log: told where none can be kept, and where hashing takes time.
    """
    path, settings = folder / run_files.REPLIES_AGAIN, trained_model.settings
    trained = {"tuned": folder / run_files.trained_name(settings)} | {
        adapter.name: adapter.folder for adapter in adapters
    }

    def opened(name: str) -> ReplyLog:
        try:
            weights = dict(read_inputs(folder)["base_sha256"])
        except CheckpointError:  # said where the models were opened
            return NOT_KEPT
        if name in trained:
            sha256 = model_sha256(trained[name], cache=cache_folder() / "sha256", log=log)
            weights |= {f"trained/{file}": digest for file, digest in sha256.items()}
        tokenizer, precision = trained_model.renderer.tokenizer, resolve(settings).precision
        return opened_replies(path, settings, weights, tokenizer, precision=precision, log=log)

    yield opened
    delete_replies(path)
