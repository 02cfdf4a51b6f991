#!/usr/bin/env bash
# lm-eval 0.4.13: BBH counts a right answer as wrong where the reply does not go on behind it
#
# The tasks of the group `bbh` (three examples with reasoning) take the answer out of a reply with the pattern
# "(?<=the answer is )(.*)(?=.)". Its last dot is no full stop but any character, and so the last character of the line
# is always cut off. The examples end in a full stop, which is what is meant to go. A model that was tuned to chat often
# ends with the answer itself: "So the answer is (B)" is read as "(B", and "So the answer is 24" as "2". One expects both
# to be right. The same pattern is in gpqa (n-shot, chain of thought, strict-match) and mmlu_flan_cot_fewshot. Such a
# model seems to have forgotten how to reason; read some of the logged replies before you believe a score of these tasks.
#
# Seen when this was written: with the full stop three of three replies are right, without it none, and of "is 24" a
# model that should have said 2 is right. Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install lm-eval==0.4.13
cat > "$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import get_filter

task = Path(lm_eval.__file__).parent / "tasks" / "bbh" / "cot_fewshot" / "_cot_fewshot_template_yaml"
(pipeline,) = yaml.safe_load(task.read_text())["filter_list"]
regex, _ = pipeline["filter"]
pattern = regex.pop("regex_pattern")
extract = get_filter(regex.pop("function"))(regex_pattern=pattern, **regex)


def right(reply: str, target: str) -> bool:
    (extracted,) = extract.apply([[reply]], [{}])
    verdict = exact_match_hf_evaluate(predictions=extracted, references=[target])["exact_match"] == 1
    print(f"{reply!r} is read as {extracted[0]!r}; target {target!r}: {'right' if verdict else 'wrong'}")
    return verdict


print("pattern:", pattern)
targets = ("(B)", "24", "True")
with_stop = [right(f"Let's see. So the answer is {target}.", target) for target in targets]
without = [right(f"Let's see. So the answer is {target}", target) for target in targets]
as_written = all(with_stop) and not any(without) and right("So the answer is 24", "2")
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
