"""`compare RUN --checkpoints`: which checkpoint of a run replies best to held-out rows; the run ends with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from tutelage.cli.raters import Raters
from tutelage.errors import CheckpointError, command
from tutelage.evaluate.pairwise.contest import (
    Contest,
    contest_notes,
    contest_of,
    contest_table,
    pairings_with,
    questions,
)
from tutelage.evaluate.pairwise.judge import cost_of, judge_tasks
from tutelage.evaluate.pairwise.pairs import Answered, Pairing, Replies
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.measures import Drawn
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files
from tutelage.runs.choice import CheckpointChoice
from tutelage.runs.metrics_log import read_record, record_path

if TYPE_CHECKING:
    from tutelage.train.checkpoint_replies import AskedRun

DEFAULT_LIMIT = 50
"""Held-out rows, as LIMA's authors chose their checkpoint on 50 (Zhou et al. 2023, arXiv 2305.11206)."""
BYTES_A_TOKEN = 4
"""Of a reply that is not there yet, for the estimate of a judge's cost."""


def compare_checkpoints(
    run: str,
    raters: Raters,
    folder: Path,
    limit: int | None,
    max_new_tokens: int | None,
    *,
    base: bool,
    choose: bool,
    dry_run: bool,
    decides: str | None,
) -> None:
    """Ask every checkpoint that is kept the same held-out rows, and whoever rates which reply is better.

    Args:
        run: the folder of a finished run.
        raters: who is asked.
        folder: where replies and verdicts are kept.
        limit: held-out rows; None is 50.
        max_new_tokens: of a reply; None is what the run has.
        base: the model before training is compared as well; it is never chosen.
        choose: the run ends with what is shown to be preferred.
        dry_run: say what it takes, and ask nobody.
        decides: the judge that decides, where several said something.

    Raises:
        TutelageError: of the kind that fits.
    """
    from tutelage.train.checkpoint_replies import BASE, checkpoint_replies, known_replies
    from tutelage.train.choice import ending_step

    errors = Terminal(stderr=True)
    run_folder = run_files.existing_run_folder(run)
    asked, heldout = _asked_run(run_folder, folder, limit or DEFAULT_LIMIT, max_new_tokens, raters.seed, errors)
    names = {step: f"step {step}" for step in _steps(asked, heldout)} | ({BASE: "before training"} if base else {})
    verdicts = VerdictFile.open(folder)
    if dry_run:
        replies = known_replies(asked, names, Screen(errors)) or _stand_ins(asked, names)
        _dry_run(asked, questions([*pairings_with(replies, heldout, seed=0).values()], seed=0), verdicts, raters)
        return
    replies = checkpoint_replies(asked, names, Screen(errors))
    pairings = pairings_with(replies, heldout, seed=raters.seed)
    raters.ask(questions([*pairings.values()], seed=raters.seed), verdicts, errors)
    judge = decides if raters.judge is None else raters.judge.model
    contest = contest_of(pairings, verdicts, heldout_step=heldout, judge=judge, base_step=BASE if base else None)
    _show(contest, names, run_folder, verdicts, as_json=raters.as_json)
    if choose:
        _choose(contest, run_folder, errors)
    elif contest.chosen_step != ending_step(run_files.read_result(run_folder)):
        errors.write_line(f"The run ends with step {contest.chosen_step} by: the same command with --choose")


def _asked_run(
    run_folder: Path, folder: Path, limit: int, max_new_tokens: int | None, seed: int, errors: Terminal
) -> tuple[AskedRun, int]:
    """The run with the prompts that its checkpoints are asked; and the step that held-out loss chose.

    Raises:
        CheckpointError: the run is not finished.
        DataError: it holds nothing out, or its data changed.
    """
    from tutelage.builders.base_model import start_folder, with_adapters_own
    from tutelage.builders.dataset import prepare, prepared_cache
    from tutelage.builders.heldout_prompts import heldout_prompts, require_same_rows
    from tutelage.builders.positions import positions_of
    from tutelage.runs.fingerprint import explain_missing_paths
    from tutelage.train.checkpoint_replies import AskedRun
    from tutelage.train.choice import heldout_step

    if not (run_folder / run_files.RESULT).is_file():
        raise CheckpointError(
            "Checkpoints are compared once a run is finished",
            where=str(run_folder),
            found=f"no {run_files.RESULT}",
            expected="a finished run",
            fix=f"let it finish: {command('train', '--resume', run_folder)}",
        )
    heldout = heldout_step(run_files.read_result(run_folder))
    settings = with_adapters_own(run_files.read_settings(run_folder))
    settings = settings.model_copy(update={"folder": str(run_folder.parent), "name": run_folder.name})
    base = start_folder(settings.model, log=errors.write_line)
    with explain_missing_paths(run_folder):
        prepared = prepare(positions_of(settings, base).within(settings), base, cache=prepared_cache())
    require_same_rows(run_folder, prepared)
    if max_new_tokens is not None:
        evaluate = settings.evaluate.model_copy(update={"max_new_tokens": max_new_tokens})
        settings = settings.model_copy(update={"evaluate": evaluate})
    prompts = heldout_prompts(settings, prepared, limit=limit, seed=seed)
    return AskedRun(settings, base, prepared, prompts, folder), heldout


def _steps(asked: AskedRun, heldout: int) -> list[int]:
    """Those whose weights are kept.

    Raises:
        CheckpointError: there is nothing to compare.
    """
    steps = asked.checkpoints.weights_steps()
    if heldout not in steps or len(steps) < 2:
        raise CheckpointError(
            "There is nothing to choose from" if heldout in steps else "What held-out loss chose is not among them",
            where=str(asked.checkpoints.folder),
            found=f"weights of {', '.join(map(str, steps)) or 'no step'}; held-out loss chose step {heldout}",
            expected="several checkpoints, such as one an epoch",
            fix="train with train.checkpoint_every and train.keep_checkpoints, such as 50 and 10",
        )
    return steps


def _stand_ins(asked: AskedRun, names: dict[int, str]) -> dict[int, Replies]:
    """Replies as long as they may become, so that a cost is known before a model is asked."""
    longest = asked.settings.evaluate.max_new_tokens * BYTES_A_TOKEN
    return {
        step: Replies(
            name,
            tuple(Answered(row.address, row.messages, f"{step}".ljust(longest, "x")) for row in asked.prompts),
        )
        for step, name in names.items()
    }


def _dry_run(asked: AskedRun, pairing: Pairing, verdicts: VerdictFile, raters: Raters) -> None:
    plan: dict[str, Any] = {
        "prompts": len(asked.prompts),
        "models": pairing.name_b.count(",") + 2,
        "pairs": len(pairing.pairs),
        "longest_reply_tokens": asked.settings.evaluate.max_new_tokens,
    }
    lines = [
        f"{plan['prompts']} held-out rows asked of {plan['models']} models, replies of at most "
        f"{plan['longest_reply_tokens']} tokens; {plan['pairs']} pairs with {pairing.name_a}, which held-out loss chose"
    ]
    if raters.judge is not None:
        tasks = judge_tasks(pairing.pairs, raters.judge.model)
        cost = cost_of(tasks, verdicts, answer_tokens=raters.judge.answer_tokens)
        plan |= asdict(cost)
        lines.append(
            f"{cost.requests} requests to {raters.judge.model} ({cost.known} verdicts are known): at most "
            f"{cost.most_tokens:,} tokens, if none is repeated; the prompts are about {cost.likely_tokens:,}"
        )
    if raters.as_json:
        print_json(plan)
        return
    for line in lines:
        Terminal().write_line(line)


def _show(contest: Contest, names: dict[int, str], run_folder: Path, verdicts: VerdictFile, *, as_json: bool) -> None:
    losses = {
        line["step"]: line["heldout_loss"]
        for line in read_record(record_path(run_folder))[0]
        if line.get("heldout_loss") is not None
    }
    if as_json:
        print_json(
            {
                "heldout_step": contest.heldout_step,
                "chosen_step": contest.chosen_step,
                "decided_by": contest.decided_by,
                "better_steps": contest.better_steps,
                "comparisons": _comparisons(contest),
            }
        )
        return
    out = Terminal()
    out.print(Drawn(contest_table(contest, names, losses), title=f"Replies of checkpoints of {run_folder.name}"))
    for note in contest_notes(contest, names):
        out.print(Text(note, style="dim"))
    out.write_line(f"Verdicts: {verdicts.path}")


def _comparisons(contest: Contest) -> list[dict[str, Any]]:
    return [{"step": step, **asdict(result)} for step, result in contest.results.items()]


def _choose(contest: Contest, run_folder: Path, errors: Terminal) -> None:
    """The run ends with what was chosen: its weights are saved in the place of the others, and measured.

    Raises:
        CheckpointError: nobody said anything yet.
        Exit: Ctrl-C; resumed, the run ends with it.
    """
    from tutelage.api.actions import train
    from tutelage.train.choice import put_choice

    if contest.decided_by is None:
        raise CheckpointError(
            "There is no verdict to choose by",
            where=str(run_folder),
            found="several judges, and no people" if contest.judges else "no verdict",
            expected="verdicts of people, or of a judge",
            fix="name the judge with --model" if contest.judges else "add --by judge, --by browser or --by terminal",
        )
    lines = {step: contest.line(step) for step in contest.results}
    said = tuple({"step": step} | ({} if line is None else asdict(line)) for step, line in lines.items())
    choice = CheckpointChoice(contest.chosen_step, contest.heldout_step, contest.decided_by, said)
    if not put_choice(run_folder, choice, Screen(errors)):
        errors.write_line(f"The run ends with step {choice.step}, as it did; why is in {run_folder / run_files.CHOICE}")
        return
    settings = run_files.read_settings(run_folder)
    settings = settings.model_copy(update={"folder": str(run_folder.parent), "name": run_folder.name})
    if train(settings, resume=True, screen=Screen(errors)).ended == "interrupted":
        raise typer.Exit(130)
    errors.write_line(f"The run ends with step {choice.step} now: chat, evaluate, export and serve take it")
