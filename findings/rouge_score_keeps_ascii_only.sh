#!/usr/bin/env bash
# rouge-score 0.1.2: of Chinese, Arabic or Russian instructions nothing is compared, or one Latin word is
#
# Self-Instruct and Alpaca reject an instruction whose ROUGE-L F with an earlier one is above 0.7. The tokenizer of
# rouge-score keeps a to z and 0 to 9 alone. One expects that an instruction in another script scores 1 with itself: it
# scores 0, so that every copy passes. And where one Latin word stands in each of two different Chinese instructions
# ("Python"), they score 1, so that the second is rejected. Of "Résumé" only "r" and "sum" are left.
#
# Seen when this was written: 0 for three instructions beside themselves, 1 for two different ones.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install rouge-score==0.1.2
cat > "$folder/show.py" <<'PYTHON'
import sys

from rouge_score import rouge_scorer

scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
copies = ["请写一首关于春天的诗", "اكتب قصيدة عن الربيع", "Напиши стихотворение о весне"]
different = ("请用 Python 写一个排序函数", "请解释 Python 是什么")
of_copies = [scorer.score(text, text)["rougeL"].fmeasure for text in copies]
of_different = scorer.score(*different)["rougeL"].fmeasure
print("copies:", *of_copies, "- different ones:", of_different)
sys.exit(0 if of_copies == [0, 0, 0] and of_different == 1 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
