#!/usr/bin/env bash
# PEFT 0.21.2: an adapter with a tied embedding trained whole answers otherwise when it is loaded beside another one
#
# A model ties its output head to its input embedding, and an adapter trains the embedding whole (`modules_to_save` with
# `ensure_weight_tying=True`), so both change together, and both are in the file that PEFT saves. Loaded as the first
# adapter of a model (PeftModel.from_pretrained) it answers as it did in training. Loaded beside another one
# (`load_adapter`, as programs do that serve several adapters of one base) it keeps the base's output head: its own is in
# the file and finds no place. Nothing is raised; a warning says that no tied modules were found in the model.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, peft 0.21.2), with a tiny Llama: first slot, largest
# difference of a logit 0.0; second slot 12.1, and the second slot's head is the base's. One expects the same logits in
# both, or an error. Ends with 0 as long as this is so, with 1 once it is otherwise.
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
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

folder = sys.argv[1]
torch.manual_seed(0)
config = AutoConfig.for_model(
    "llama", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True,
)
AutoModelForCausalLM.from_config(config).save_pretrained(f"{folder}/base")
lora = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
trained = get_peft_model(AutoModelForCausalLM.from_pretrained(f"{folder}/base"), lora).eval()
with torch.no_grad():  # stands for training
    for name, parameter in trained.named_parameters():
        if "modules_to_save" in name or "lora_B" in name:
            parameter.normal_(std=0.3)
trained.save_pretrained(f"{folder}/adapter")
ids = torch.arange(5)[None] + 5
with torch.no_grad():
    expected = trained(ids).logits
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(f"{folder}/base"), f"{folder}/adapter").eval()
    first = float((model(ids).logits - expected).abs().max())
    model.load_adapter(f"{folder}/adapter", adapter_name="second")
    model.set_adapter("second")
    second = float((model.eval()(ids).logits - expected).abs().max())
head = [name for name, module in model.named_modules() if type(module).__name__ == "ModulesToSaveWrapper"]
slots = {name: sorted(model.get_submodule(name).modules_to_save) for name in head}
print(f"largest difference of a logit: first slot {first:.4f}, second slot {second:.4f}; slots {slots}")
as_written = first == 0.0 and second > 0.1 and any(names == ["default"] for names in slots.values())
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
