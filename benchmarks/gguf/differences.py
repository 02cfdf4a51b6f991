"""How far llama.cpp's output from a GGUF file is from the model's own, by type of file: what `limits.toml` rests on.

    python benchmarks/gguf/differences.py                       # the embedded SmolLM2-135M-Instruct
    python benchmarks/gguf/differences.py FOLDER --types q8_0   # another model

Writes each file into a temporary folder, lets llama.cpp answer 20 questions of 24 tokens greedily, and compares its
distributions with transformers' in fp32 along these replies.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tutelage.export.gguf.export import export_gguf, probe_prompts
from tutelage.export.gguf.file_types import FILE_TYPES
from tutelage.export.gguf.llama_cpp import Witness
from tutelage.export.gguf.output_proof import compare_output
from tutelage.model.locate import model_folder


def main() -> None:
    """Print a table, one row a type."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="smollm2-135m")
    options.add_argument("--types", nargs="*", default=list(FILE_TYPES))
    given = options.parse_args()
    folder = model_folder(given.model)
    prompts = probe_prompts(folder)
    print("type     MB    mean KL   largest KL  noise   same text  ties  flips  worst tensor (relative error)")
    for kind in given.types:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.gguf"
            result = export_gguf(folder, path, kind=kind, prove=False, log=lambda _: None)
            proof = compare_output(Witness(path), folder, prompts, kind=kind)
            worst = max(result.tensors, key=lambda tensor: tensor.error)
            print(
                f"{kind:8} {path.stat().st_size / 1e6:5.0f} {proof.mean_kl:9.2e} {proof.largest_kl:10.2e} "
                f"{proof.noise:8.4f} {proof.same_text:6}/{proof.prompts} {proof.ties:6} {proof.flips:6}"
                f"  {worst.name} {worst.kind.name} {worst.error:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
