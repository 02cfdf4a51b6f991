#!/usr/bin/env bash
# One virtual environment for each tool that is compared with, of pinned versions, under a folder outside this tree:
#     bash benchmarks/train/environments.sh FOLDER
# About 3 minutes and 3.5 GB. An environment that is there is left alone; delete its folder to make it anew.
# PYTHON and TORCH say which Python and which build of torch; on Linux name a CPU build as in the Makefile, or the
# package index serves torch with several GB of CUDA libraries.
set -euo pipefail
folder=${1:?"give a folder for the environments"}
here=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-torch==2.13.0}
mkdir -p "$folder"
for tool in ${TOOLS:-trl litgpt llamafactory}; do
    [ -e "$folder/$tool/made" ] && continue
    rm -rf "${folder:?}/$tool"
    "$PYTHON" -m venv "$folder/$tool"
    pip=("$folder/$tool/bin/pip" --quiet --disable-pip-version-check install)
    "${pip[@]}" "$TORCH"
    # The lists are complete: with --no-deps pip neither searches for versions nor fetches what only web pages need.
    "${pip[@]}" --no-deps -r "$here/environments/$tool.txt"
    # LLaMA-Factory imports torchaudio, which the index has for CUDA only; without its compiled part it imports, and
    # training on text calls nothing of it.
    rm -f "$folder/$tool"/lib/python3*/site-packages/torchaudio/lib/_torchaudio*.so
    touch "$folder/$tool/made"
    echo "$folder/$tool is ready"
done
