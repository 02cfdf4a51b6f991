"""The findings about published templates agree with what was written down about each by another program.

The list has one line for each template: what rendering showed, by probes of its own.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from tutelage.audit.template_findings import checkpoint_findings
from tutelage.audit.template_probe import Probe, content_form, control_like
from tutelage.audit.tool_findings import probe_tools
from tutelage.render import ChatTemplate, Tokenizer

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/templates"
pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the published templates are not here")

SYSTEM = {
    "system_kept": "separate",
    "system_merged": "merged_into_user",
    "system_refused": "error",
    "system_dropped": "dropped",
    "system_dropped_after_reply": "dropped_unless_last_is_user",
    "plain_chat_refused": "error",
}
CALLS = {"kept": "ok", "python": "ok", "twice_encoded": "ok(escaped)", "dropped": "drop", "refused": "err"}

PARTS = "probed there with content as text, which it does not write or refuses; here with content as parts"
HERMES = "refuses tools = none, which servers give; the list has it without that argument"
AS_TEXT = "probed there with arguments as an object, which it refuses; here with the spelling that it writes"
NO_WORDS = "leaves out the user's words, so nothing else is reported about it"
OTHERWISE = {
    "trl__idefics3.jinja": dict.fromkeys(
        ("system", "trims", "tool_call_args_dict", "tool_call_args_str", "tool_role"), PARTS
    ),
    "trl__idefics3-training.jinja": dict.fromkeys(
        ("system", "trims", "tool_call_args_dict", "tool_call_args_str", "tool_role"), PARTS
    ),
    "trl__llava-next.jinja": {"system": PARTS},
    "trl__llava-next-training.jinja": {"system": PARTS},
    "ikllama__NousResearch-Hermes-2-Pro-Llama-3-8B-tool-use.jinja": dict.fromkeys(("system", "default_system"), HERMES),
    "axolotl__deepseek-v3.jinja": {"tool_call_content_None": AS_TEXT},
    "trl__deepseekv3.jinja": {"tool_call_content_None": AS_TEXT},
    "gpt4all__gpt4all-Wizard-v1.2.jinja": dict.fromkeys(("system", "trims"), NO_WORDS),
    "gpt4all__gpt4all-DeepSeek-R1-Distill-Qwen-7B.jinja": {
        "system": "replies are refused, as a filter is missing; prompts are not, and have the system turn"
    },
    "vllm__template-llava.jinja": {"system": "the user's mark follows the system text, though without a line break"},
    "mistralrs__mistral-small-tool-call.jinja": {"system": "written twice: alone, and merged into the user's turn"},
    "mistralrs__default.jinja": {"system": "stands inside the user's instruction, where the default prompt stands"},
    "ikllama__llama-cpp-rwkv-world.jinja": {"system": "system and user are two paragraphs, each with its mark"},
    "vllm__template-inkbot.jinja": {"default_system": "writes a form of meta data, date and task, when there is none"},
}
"""Cells in which the list and the findings differ, and why the findings are right."""


def rows() -> list[dict[str, str]]:
    with (MATERIAL / "INDEX.tsv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def cells(row: dict[str, str], template: ChatTemplate, tokenizer: Tokenizer) -> Iterator[tuple[str, str, str]]:
    """Column, what the list says, what the findings say."""
    keys = {checkpoint_finding.key for checkpoint_finding in checkpoint_findings(template, tokenizer)}
    marks = row["special"]
    yield "system", row["system"], next((word for key, word in SYSTEM.items() if key in keys), "nothing")
    trims = {(True, True): "both", (True, False): "user", (False, True): "assistant", (False, False): ""}
    said = next((one for one in ("both", "user", "assistant") if f"trims_{one}" in marks), "")
    yield "trims", said, trims["trims_user" in keys, "trims_assistant" in keys]
    for mark, own in (
        ("date_injected", {"date_in_prompt"}),
        ("default_system", {"default_system"}),
        ("ignores_add_generation_prompt", {"ignores_generation_prompt"}),
        ("gen_prompt_opens_think", {"prompt_opens_reasoning", "prompt_closes_reasoning"}),
    ):
        yield mark, str(mark in marks), str(bool(own & keys))
    seen = probe_tools(Probe(template, content_form(template)))
    yield "tools", row["tools"], "yes" if seen.offered == "kept" else "no"
    yield "tool_call_args_dict", row["tool_call_args_dict"], CALLS[seen.object_arguments]
    yield "tool_call_args_str", row["tool_call_args_str"], CALLS[seen.text_arguments]
    yield "tool_call_content_None", row["tool_call_content_None"], CALLS[seen.null_content]
    yield "tool_role", row["tool_role"], {"kept": "ok", "dropped": "drop", "refused": "err"}[seen.result]


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, write_model_folder: Callable[..., Path]
) -> list[tuple[str, str, str, str]]:
    """File, column, what the list says, what we say: for all templates, each with its own control tokens."""
    base = write_model_folder(
        tmp_path_factory.mktemp("published"), control_tokens=["<|BOS|>", "<|EOS|>"], stop="<|EOS|>", bos="<|BOS|>"
    )
    plain, found = Tokenizer.load(base), []
    for row in rows():
        source = (MATERIAL / row["file"]).read_text(encoding="utf-8")
        tokens = control_like(source)
        fast = FastTokenizer.from_file(str(base / "tokenizer.json"))
        fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        tokenizer = dataclasses.replace(plain, fast=fast, vocabulary_size=fast.get_vocab_size())
        template = ChatTemplate(source, named_tokens=tokenizer.named_tokens)
        found += [(row["file"], *cell) for cell in cells(row, template, tokenizer)]
    return found


def test_at_least_95_percent_of_the_cells_agree(compared: list[tuple[str, str, str, str]]) -> None:
    differ = [one for one in compared if one[2] != one[3]]
    assert len(compared) == 11 * len(rows())
    assert len(differ) <= 0.05 * len(compared), differ


def test_each_column_agrees_in_nine_of_ten(compared: list[tuple[str, str, str, str]]) -> None:
    wrong = Counter(column for _, column, listed, seen in compared if listed != seen)
    assert max(wrong.values()) <= 0.1 * len(rows()), wrong


def test_every_disagreement_is_explained(compared: list[tuple[str, str, str, str]]) -> None:
    differ = {(file, column) for file, column, listed, seen in compared if listed != seen}
    assert differ == {(file, column) for file, columns in OTHERWISE.items() for column in columns}
