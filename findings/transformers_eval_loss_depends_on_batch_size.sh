#!/usr/bin/env bash
# transformers 5.23.0: eval_loss of Trainer.evaluate changes with the evaluation's batch size; the training loss does not
#
# In training, Trainer divides the summed loss of a step by the number of its trained tokens, however the step is cut into
# batches. In evaluation it takes the mean over tokens in each batch, and then the mean of these means, weighed by rows.
# So with replies of unequal length a token of a short reply counts for more, the smaller the batch, and eval_loss is
# another quantity than the training loss. One expects the loss per token of the same model on the same rows, whatever
# per_device_eval_batch_size is. Who compares runs of different batch sizes, reads a perplexity off eval_loss, or chooses
# a checkpoint by it, is misled. Evaluate in one batch size throughout, or sum losses and tokens yourself.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0), a tiny Llama of random weights, two replies of 1 token
# and two of 40 and 30: 4.89 per token, and as the loss of a training step in batches of 1; eval_loss is 5.33 with batches
# of 1, 5.32 with 2, and 4.89 only where one batch holds all. Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 accelerate==1.15.0
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

config = AutoConfig.for_model(
    "llama", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(12)  # so that losses of tokens differ
random = torch.Generator().manual_seed(1)
rows = []
for trained in (1, 1, 40, 30):
    ids = torch.randint(0, 64, (41,), generator=random).tolist()
    rows.append({"input_ids": ids, "labels": [-100] * (41 - trained) + ids[41 - trained :]})

total = tokens = 0
with torch.no_grad():
    for row in rows:
        labels = torch.tensor(row["labels"][1:])
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        total += float(cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        tokens += int((labels != -100).sum())
per_token = total / tokens


def trainer(**settings):
    arguments = TrainingArguments(sys.argv[1], use_cpu=True, report_to=[], disable_tqdm=True, **settings)
    return Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=default_data_collator)


of_batches = {size: trainer(per_device_eval_batch_size=size).evaluate()["eval_loss"] for size in (1, 2, 4)}
of_step = trainer(
    per_device_train_batch_size=1, gradient_accumulation_steps=4, max_steps=1, learning_rate=0.0, save_strategy="no"
).train().training_loss
print(f"per token {per_token:.4f}, loss of a training step of 4 x 1 rows {of_step:.4f}")
print("eval_loss by batch size:", {size: round(loss, 4) for size, loss in of_batches.items()})
off = {size: abs(loss / per_token - 1) for size, loss in of_batches.items()}
as_written = abs(of_step / per_token - 1) < 1e-4 and off[1] > 0.05 and off[2] > 0.05 and off[4] < 1e-4
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder/run" > "$folder/out" 2> "$folder/log" || { cat "$folder/out"; tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
grep -v "^{" "$folder/out"
