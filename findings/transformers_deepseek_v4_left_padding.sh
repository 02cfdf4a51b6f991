#!/usr/bin/env bash
# transformers 5.23.0: DeepSeek V4 answers otherwise where its prompt is padded on the left, as generate asks for
#
# A batch of prompts of unequal length is padded on the left, with an attention mask that says so. For Llama and most
# kinds the next token's logits are then those of the prompt alone. DeepSeek V4 compresses blocks of keys, and padding
# takes part in it: already one token of padding moves the first new token's logits by some percent, and padding by whole
# blocks moves them as well. One expects that what is masked changes nothing. So replies and scores of a batched
# evaluation are those of a changed model, and depend on which prompts share a batch. No warning is given. Generate with
# one prompt at a time, or with prompts of equal length.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0), tiny models of random weights in fp32, a prompt of 9
# tokens, padding of 1, 4 and 16: Llama is off by less than 1e-5, DeepSeek V4 by more than 5 %.
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

SIZES = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
MORE = {
    "llama": {"intermediate_size": 64},
    "deepseek_v4": {
        "moe_intermediate_size": 64, "num_key_value_heads": 1, "q_lora_rank": 16, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "max_position_embeddings": 512, "o_groups": 4, "o_lora_rank": 16, "index_head_dim": 8,
        "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"],
        "mlp_layer_types": ["hash_moe", "moe"], "partial_rotary_factor": 0.5, "qk_rope_head_dim": 4,
    },
}
prompt = torch.arange(9)[None] * 11 + 5
how = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 3, "eos_token_id": None}


def first_logits(model, padding):
    ids = torch.cat([torch.full((1, padding), 3), prompt], dim=1)
    mask = (torch.arange(ids.shape[1]) >= padding).long()[None]
    return model.generate(ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **how).logits[0]


off = {}
for kind, more in MORE.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **more)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    alone = first_logits(model, 0)
    off[kind] = [float((first_logits(model, padding) - alone).norm() / alone.norm()) for padding in (1, 4, 16)]
    print(kind, "logits off by", *(f"{share:.6f}" for share in off[kind]), "with padding of 1, 4, 16")
as_written = max(off["llama"]) < 1e-5 and min(off["deepseek_v4"]) > 0.05
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
