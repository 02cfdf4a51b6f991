#!/usr/bin/env bash
# wordllama 0.4.0.post1: without a network the packaged model cannot be loaded, as its tokenizer is looked for elsewhere
#
# The wheel has weights and tokenizer of the default model, in wordllama/weights/ and wordllama/tokenizers/. The loader
# looks for both in folders named as the kind of file is: weights/, which is there, and tokenizer/, which is not. With a
# network it downloads the tokenizer and says nothing; without, or with disable_download=True, it raises, though the file
# lies in the wheel. One expects the packaged files to be used, as the weights are.
#
# Seen when this was written: WordLlama.load(disable_download=True) raises FileNotFoundError, "Tokenizer file
# 'l2_supercat_tokenizer_config.json' not found in project root or cache"; the same file, copied to CACHE/tokenizers/,
# makes it load, and two sentences on the same thing come out more alike than two on different things.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install wordllama==0.4.0.post1
cat > "$folder/show.py" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import wordllama
from wordllama import WordLlama

cache = Path(sys.argv[1])
packaged = Path(wordllama.__file__).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"
print("in the wheel:", packaged.is_file())
try:
    WordLlama.load(cache_dir=cache, disable_download=True)
    raised = ""
except FileNotFoundError as error:
    raised = str(error)
print("as installed:", raised or "loaded")
(cache / "tokenizers").mkdir(parents=True)
shutil.copy(packaged, cache / "tokenizers")
model = WordLlama.load(cache_dir=cache, disable_download=True)
alike, other = (model.similarity("a cat sleeps", text) for text in ("the kitten is asleep", "stocks fell on Monday"))
print("with the file copied:", "loaded,", "alike" if alike > other else "not alike")
as_written = packaged.is_file() and "Tokenizer file" in raised and alike > other
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder/cache" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
