#!/usr/bin/env bash
# if-verifiable 0.1.2: a bold word behind a bullet counts as two highlighted sections
#
# IFEval asks for at least N sections highlighted with asterisks. "**First** wash it." has one, and is counted as one.
# As a bullet point, "* **First** wash it.", it is counted as two: the bullet's asterisk and the first of the bold ones
# pair up, what is left between them is read as *First*, and then **First** is counted as well. "***very***" is counted
# twice, too. One expects one of each.
#
# Seen when this was written: with two highlights asked, the first reply fails, the second and the third pass.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install if-verifiable==0.1.2 nltk==3.10.4 langdetect==1.0.9
cat > "$folder/show.py" <<'PYTHON'
import sys

from if_verifiable import IFEvalSample, evaluate_output_for_sample

name, asked = "detectable_format:number_highlighted_sections", {"num_highlights": 2}
sample = IFEvalSample(1, "Highlight at least 2 sections in your answer with markdown.", [name], [asked])
verdicts = []
for reply in ("**First** wash it.\nThen dry it.", "* **First** wash it.\n* Then dry it.", "This is ***very*** good."):
    verdicts.append(evaluate_output_for_sample("ifeval", sample, reply)[0][0].strict_pass)
    print(f"{reply!r}: {'at least two' if verdicts[-1] else 'fewer than two'}")
sys.exit(0 if verdicts == [False, True, True] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
