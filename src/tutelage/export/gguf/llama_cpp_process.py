"""Asks llama.cpp's own server about a file, in a process of its own: what it dies of takes nothing with it.

    python -m tutelage.export.gguf.llama_cpp_process QUESTIONS.json ANSWERS.json

The questions name the file, perhaps an adapter, and a list of steps; each step is one request or a served prompt.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def answers(questions: Mapping[str, Any]) -> list[Any]:
    """What the server says to each step.

    A step is {"route", "body"}: the JSON that comes back; or {"served": body of /apply-template}: the ids that a chat
    request feeds the model, BOS included, or {"refused": why}.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = questions["model"]
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = questions["context"], 1, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = questions["threads"]
    params.use_jinja = True
    params.fit_params = False
    params.cache_ram_mib = 0
    # Keys and values as they were computed: rounded to f16, as by default, they would count against the file.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if questions.get("adapter"):
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = questions["adapter"], 1.0
        params.lora_adapters = [lora]
    server = xllamacpp.Server(params)
    address = server.listening_address

    def ask(route: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the server above, on this machine
            address + route,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310 - as above
            return json.load(reply)

    def served(body: Any) -> Any:
        try:
            prompt = ask("/apply-template", body)["prompt"]
        except urllib.error.HTTPError as error:
            return {"refused": error.read().decode(errors="replace")}
        return ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]

    return [
        served(step["served"]) if "served" in step else ask(step["route"], step.get("body"))
        for step in questions["steps"]
    ]


if __name__ == "__main__":
    asked, told = sys.argv[1:]
    result = answers(json.loads(Path(asked).read_text(encoding="utf-8")))
    Path(told).write_text(json.dumps(result), encoding="utf-8")
