"""Tasks of lm-eval of our own: YAML files beside JSON lines, which need no network."""

from __future__ import annotations

import json
from pathlib import Path

QUESTIONS = (
    ("What does my sister return?", ("the blue lamp", "a driver", "two tickets"), 0),
    ("Who has lost order 4711?", ("nobody", "the manual", "an answer", "our team"), 3),
    ("What is one of these: 1, 10 or 11?", ("1", "10", "11"), 1),
    ("Is the shop old?", ("yes", "no"), 0),
    ("Whose is the manual?", ("The customer's", "a driver's, she says", "ours"), 2),
)
TEXTS = ("The customer asks for the blue lamp.", "Nobody\n\n cannot find order 4711! " * 3, "a")
YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
{rest}
"""
CHOICES = """\
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
REPLIES = """\
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "e"], max_gen_toks: 12, do_sample: false}
metric_list:
  - metric: exact_match
"""
WHOLE_TEXTS = """\
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
"""


def write_tasks(folder: Path) -> dict[str, Path]:
    """A task of each kind, by its name: `own_choices`, `own_replies`, `own_texts`."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, texts = folder / "questions.jsonl", folder / "texts.jsonl"
    rows = [{"question": asked, "choices": list(choices), "answer": answer} for asked, choices, answer in QUESTIONS]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    tasks = {
        "own_choices": ("multiple_choice", CHOICES, questions),
        "own_replies": ("generate_until", REPLIES, questions),
        "own_texts": ("loglikelihood_rolling", WHOLE_TEXTS, texts),
    }
    paths = {}
    for name, (kind, rest, data) in tasks.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(YAML.format(name=name, kind=kind, data=data, rest=rest), encoding="utf-8")
    return paths
