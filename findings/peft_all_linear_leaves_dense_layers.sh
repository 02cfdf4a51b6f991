#!/usr/bin/env bash
# PEFT 0.21.2: target_modules="all-linear" on a model with experts leaves plain linear layers without a pair
#
# The experts of DeepSeek V3 are one tensor of three dimensions for each projection, and PEFT puts pairs on those tensors.
# In doing so it drops their names (gate_proj, up_proj, down_proj) from the targets, and with them the dense layers and the
# shared experts, which are torch.nn.Linear and bear the same names. One expects every linear layer but the head to get
# a pair, as the documentation of "all-linear" says, or a word about those that do not.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, peft 0.21.2), with a tiny DeepSeek V3 of two layers: six
# linear layers without a pair, three of the dense layer and three of the shared expert, and no warning that names them.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 peft==0.21.2
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

torch.manual_seed(0)
config = AutoConfig.for_model(
    "deepseek_v3", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
    n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_shared_experts=1, first_k_dense_replace=1,
    topk_group=1, n_group=1, max_position_embeddings=64,
)
model = AutoModelForCausalLM.from_config(config)
linear = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear and name != "lm_head"}
adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", r=4))
paired = {name.removesuffix(".lora_A.default").removeprefix("base_model.model.")
          for name, module in adapted.named_modules() if name.endswith(".lora_A.default")}
left = sorted(linear - {name.removesuffix(".base_layer") for name in paired})
print("torch.nn.Linear layers of all-linear that got no pair:")
print("\n".join(left) or "none")
dense = {f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")}
shared = {f"model.layers.1.mlp.shared_experts.{name}_proj" for name in ("gate", "up", "down")}
print("as written" if set(left) == dense | shared else f"otherwise; adapted: {sorted(paired)}")
sys.exit(0 if set(left) == dense | shared else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
