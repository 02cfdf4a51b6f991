"""llama.cpp's server (`xllamacpp`) on the same weights: the embedded model's GGUF file, widened to BF16.

Its Q4_1 weights are what the model's folder was made from, so BF16 rounds both alike.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.model.embedded import embedded_gguf

THREADS = 2
MARGIN_TOKENS = 8


def widened(target: Path) -> Path:
    """The embedded model's file with matrices in BF16 and vectors in fp32; written once."""
    import gguf

    if target.exists():
        return target
    with embedded_gguf("smollm2-135m") as file:  # no file in parts: it stays where it is
        source = gguf.GGUFReader(file)
    architecture = str(source.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in source.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=element)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in source.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
        else:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(tensor.name, packed, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def server_answer(scratch: Path, job: dict[str, Any]) -> Callable[[Sequence[Any], int], list[list[int]]]:
    """Starts the server; returns what asks it: (prompts, new tokens at most) -> ids of each reply.

    Args:
        scratch: a folder for the widened file.
        job: as `contestant` reads it.
    """
    import xllamacpp

    slots = job["batch"]
    longest = max(map(len, job["prompts"])) + job["max_new_tokens"] + MARGIN_TOKENS
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(widened(scratch / "widened-bf16.gguf"))
    parameters.n_ctx, parameters.n_parallel, parameters.cont_batching = slots * longest, slots, True
    parameters.n_threads_http, parameters.verbosity = slots + 2, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    server = xllamacpp.Server(parameters)

    def reply(prompt: Any, most: int) -> list[int]:
        body = {
            "prompt": [int(token) for token in prompt], "n_predict": most, "temperature": 0.0, "top_k": 1,
            "ignore_eos": job["lengths"] == "equal", "return_tokens": True, "cache_prompt": True,
        }  # fmt: skip
        request = urllib.request.Request(
            server.listening_address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
        return tokens

    def ask(prompts: Sequence[Any], most: int) -> list[list[int]]:
        with ThreadPoolExecutor(slots) as pool:
            return list(pool.map(lambda prompt: reply(prompt, most), prompts))

    return ask
