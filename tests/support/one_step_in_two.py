"""One process of several that take the step of `one_step` together; the first writes down what came of it.

Started by test_exactness.py: `one_step_in_two.py MODEL_FOLDER BATCH OUT_FOLDER`, with the variables of `env://`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from tests.support.one_step import BEFORE, WAYS, documents_for, micro_batches, share_of, step_of
from tutelage.distributed.process_group import full_tensor, open_process_group, process_group_here
from tutelage.distributed.strategy import place_model
from tutelage.model.attention.packed import use_packed_attention


def main(model_folder: Path, batch: int, out: Path) -> None:
    """Take the step packed and not packed, and with weighted tokens; write a file of tensors for each of `WAYS`."""
    process_group = process_group_here()
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, local_files_only=True)
    documents = documents_for(model)
    trained_tokens = sum(document.trained_tokens for document in documents)
    share = share_of(documents, rank=process_group.rank, processes=process_group.size)
    with open_process_group(process_group, device="cpu"):
        strategy = place_model(model, process_group, device="cpu", precision="fp32", sharded=True)
        use_packed_attention(model)
        for name, (packed, training_loss) in WAYS.items():
            step = step_of(
                model,
                micro_batches(share, batch, packed=packed),
                out / f"record-{process_group.rank}.jsonl",
                trained_tokens=trained_tokens,
                row_loss=strategy.row_loss,
                process_group=process_group,
                progress=BEFORE,
                training_loss=training_loss,
            )
            model.zero_grad(set_to_none=True)
            rows = process_group.gather(len(micro_batches(share, batch, packed=packed)))
            whole = {parameter: full_tensor(one) for parameter, one in step.gradients.items()}
            if process_group.is_main:
                told = {"loss": step.loss, "norm": step.norm, "rows": rows}
                save_file(whole, out / f"{name}.safetensors", metadata={"step": json.dumps(told)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
