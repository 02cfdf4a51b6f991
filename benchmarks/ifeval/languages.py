"""How often the language of a text is told right, by us and by three packages, on Django's translated messages.

python -m benchmarks.ifeval.languages --environment VENV
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.ifeval.replies import TEXTS

from tutelage.evaluate.instructions.languages import known_languages, language_of

CONTESTANT = Path(__file__).parent / "package_verdicts.py"
NEIGHBORS = {"es", "fr", "nl", "id", "uk", "sv"}
"""Of the languages with sentences of ours, those that no row of IFEval asks for."""


def main() -> None:
    """Ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, help="with django and the packages")
    python = parser.parse_args().environment.absolute() / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        answer_file = Path(folder) / "answer.json"
        subprocess.run([python, CONTESTANT, answer_file, *known_languages()], check=True, env=environment)
        answer = json.loads(answer_file.read_text(encoding="utf-8"))
    asked = set(TEXTS) - NEIGHBORS
    right: Counter[tuple[str, str, int]] = Counter()
    texts: Counter[tuple[str, int]] = Counter()
    for code, together, text, verdicts in answer["rows"]:
        for group in ("all", *(["asked for"] if code in asked else [])):
            texts[group, together] += 1
            for name, verdict in {"ours": language_of(text), **verdicts}.items():
                right[name, group, together] += verdict == code
    print(", ".join(f"{name} {number}" for name, number in answer["versions"].items()))
    print("| by | one message, all | asked for | three messages, all | asked for |")
    print("|---|---|---|---|---|")
    for name in ("ours", *answer["rows"][0][3]):
        cells = [
            f"{right[name, group, together]} of {texts[group, together]}"
            for together in (1, 3)
            for group in ("all", "asked for")
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
