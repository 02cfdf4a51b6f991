#!/usr/bin/env bash
# if-verifiable 0.1.2: where IFEval counts a sign that is no letter, the verdict is drawn by chance
#
# Two rows of IFEval ask for so many "#" or "!" (keys 1122 and 1129, keywords:letter_frequency). The check takes no sign
# that is not a letter from a to z: it draws a letter in its place, another one each time. One expects that "#" is
# counted, or an error. A score then differs from run to run, for the same replies.
#
# Seen when this was written: of 400 verdicts on one reply with four "#", where at least four were asked, some were true
# and most false; on a reply without any "#" as well.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install if-verifiable==0.1.2 nltk==3.10.4 langdetect==1.0.9
cat > "$folder/show.py" <<'PYTHON'
import random
import sys
from collections import Counter

from if_verifiable import IFEvalSample, evaluate_output_for_sample

random.seed(0)
arguments = {"letter": "#", "let_frequency": 4, "let_relation": "at least"}
sample = IFEvalSample(1122, "Include at least 4 hashtags.", ["keywords:letter_frequency"], [arguments])
drawn = []
for reply in ("#summer #bunny #party #weekend", "summer bunny party weekend at the beach"):
    verdicts = Counter(evaluate_output_for_sample("ifeval", sample, reply)[0][0].strict_pass for _ in range(400))
    print(f"{reply}: {verdicts[True]} true, {verdicts[False]} false")
    drawn.append(len(verdicts) == 2)
sys.exit(0 if all(drawn) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
