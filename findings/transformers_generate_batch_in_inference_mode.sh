#!/usr/bin/env bash
# transformers 5.23.0: generate_batch inside torch.inference_mode() returns replies without a token, and raises nothing
#
# The continuous batching of transformers generates in a thread of its own, with buffers that it makes where it is
# called. Called inside torch.inference_mode(), as code that generates usually is, it makes them there; its thread, which
# is not in that mode, may not write to them. The error is logged, every request ends with it in its field `error`, and
# generate_batch returns as if all had gone well: as many outputs as prompts, each with no generated tokens. One expects
# the tokens, or an exception.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0), with a tiny Llama and two prompts of three tokens: five
# tokens each outside of the mode; inside of it none, no exception, and "Inplace update to inference tensor" in `error`.
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
from contextlib import nullcontext

import torch
from transformers import AutoConfig, AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

torch.manual_seed(0)
config = AutoConfig.for_model(
    "llama", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)
model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
generation = GenerationConfig(do_sample=False, max_new_tokens=5, eos_token_id=63, pad_token_id=63)
seen = {}
for name, mode in (("outside", nullcontext()), ("inside", torch.inference_mode())):
    with mode:
        outputs = model.generate_batch(
            inputs=[[1, 2, 3], [4, 5, 6]], generation_config=generation,
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=64), progress_bar=False,
        )
    seen[name] = [(len(output.generated_tokens), output.error) for output in outputs.values()]
    print(f"{name} of torch.inference_mode():", [(tokens, str(error)[:60]) for tokens, error in seen[name]])
as_written = seen["outside"] == [(5, None)] * 2 and len(seen["inside"]) == 2 and all(
    tokens == 0 and "inference tensor" in str(error) for tokens, error in seen["inside"]
)
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
