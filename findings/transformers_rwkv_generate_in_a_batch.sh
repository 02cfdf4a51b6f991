#!/usr/bin/env bash
# transformers 5.23.0: RWKV answers otherwise in a batch than alone, without any padding
#
# Two prompts of equal length, greedy decoding in fp32, in one call of generate and in a call for each. One expects the
# same replies, but for rounding. The first new token is the same, and most of those behind it are not: a state of one row
# reaches the other.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0), with a tiny RWKV of random weights: first tokens equal,
# replies different for both prompts.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

torch.manual_seed(0)
config = AutoConfig.for_model(
    "rwkv", vocab_size=260, hidden_size=32, attention_hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    context_length=64, bos_token_id=1, eos_token_id=2,
)
model = AutoModelForCausalLM.from_config(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)  # so that replies vary
prompts = [torch.tensor([[5, 17, 40, 9]]), torch.tensor([[88, 3, 120, 61]])]
how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 3, "eos_token_id": None}


def replies(ids):
    return model.generate(ids, attention_mask=torch.ones_like(ids), **how)[:, 4:].tolist()


alone = [replies(prompt)[0] for prompt in prompts]
together = replies(torch.cat(prompts))
print("alone   ", alone)
print("together", together)
first_equal = [one[0] for one in alone] == [one[0] for one in together]
sys.exit(0 if first_equal and all(a != b for a, b in zip(alone, together)) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
