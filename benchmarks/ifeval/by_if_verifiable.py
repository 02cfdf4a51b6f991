"""Verdicts of the package if-verifiable, in its own environment: reads cases from a file, writes verdicts to another.

Started by run.py with that environment's Python; imports nothing of this project.
"""

import json
import logging
import random
import sys
from importlib.metadata import version

import langdetect
from if_verifiable import IFEvalSample, evaluate_output_for_sample

random.seed(0)  # it draws a letter where a sign is asked for
langdetect.DetectorFactory.seed = 0  # it draws, too; without these two runs differ
logging.disable(logging.ERROR)  # it logs each text whose language it cannot tell


def verdict(case: dict) -> dict:
    """Strict and loose; or which error ended it."""
    sample = IFEvalSample(0, case["prompt"], [case["id"]], [case["arguments"]])
    try:
        results, _ = evaluate_output_for_sample("ifeval", sample, case["reply"])
    except Exception as error:  # noqa: BLE001 - whatever ends the other's verdict is part of the comparison
        return {"error": type(error).__name__}
    return {"strict": bool(results) and results[0].strict_pass, "loose": bool(results) and results[0].loose_pass}


def main() -> None:
    """Read, judge, write."""
    cases_file, verdicts_file = sys.argv[1:3]
    with open(cases_file, encoding="utf-8") as file:
        cases = json.load(file)
    versions = {name: version(name) for name in ("if-verifiable", "langdetect", "nltk")}
    with open(verdicts_file, "w", encoding="utf-8") as file:
        json.dump({"versions": versions, "verdicts": [verdict(case) for case in cases]}, file)


if __name__ == "__main__":
    main()
