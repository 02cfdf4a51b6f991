#!/usr/bin/env bash
# transformers 5.23.0: get_decoder() of some causal models gives the output head, or the whole model
#
# Tools that want hidden states before the head ask `model.get_decoder()`, which for Llama, Qwen, Gemma and most others is
# the stack of layers. ModernBertDecoderForCausalLM gives the Linear of its head, and Llama4ForCausalLM gives itself; so
# what is computed from "hidden states" there is computed from logits, or from something that is not called at all.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0): Linear, and Llama4ForCausalLM.
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

from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {
    "llama": {},
    "modernbert-decoder": {"pad_token_id": 3},
    "llama4_text": {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2},
}
seen = {}
for kind, more in MORE.items():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **more))
    seen[type(model).__name__] = type(model.get_decoder()).__name__
    print(type(model).__name__, "->", type(model.get_decoder()).__name__)
expected = {
    "LlamaForCausalLM": "LlamaModel",
    "ModernBertDecoderForCausalLM": "Linear",
    "Llama4ForCausalLM": "Llama4ForCausalLM",
}
sys.exit(0 if seen == expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
