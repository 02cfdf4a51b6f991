#!/usr/bin/env bash
# TRL 1.16.0: packed rows of some models let a document read the one before it, and nothing is said
#
# With packing=True SFTTrainer lays several documents in a row (strategy "bfd", which keeps their borders) and hands the
# model positions that begin anew with each. Whether documents stay apart is then up to the model. Where attention is
# transformers' own, Llama and most others build a mask from these positions; gpt-oss, Falcon, OPT, Bloom and MPT do not,
# and the state of Mamba runs on over the border. One expects the loss of the same documents in rows of their own, or a
# refusal, as some kinds with convolutions give it. So a model is trained on replies that follow somebody else's
# conversation. Train these without packing, or with an attention kernel that takes the borders, where the model has one.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, trl 1.16.0), two conversations, tiny models of random
# weights, on a CPU: the loss of Llama is the same packed and not, to 1e-5; that of the six others differs by 0.1 to 3 %,
# without a warning. Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 trl==1.16.0
cat > "$folder/show.py" <<'PYTHON'
import sys
import warnings

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

bytes_alone = Tokenizer(models.BPE())
bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytes_alone.decoder = decoders.ByteLevel()
marks = ["<|im_start|>", "<|im_end|>"]
bytes_alone.train_from_iterator(
    [],
    trainers.BpeTrainer(
        vocab_size=258, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    ),
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone, eos_token="<|im_end|>", pad_token="<|im_end|>")
tokenizer.chat_template = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
)
rows = [
    {"messages": [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A rose."}]},
    {"messages": [{"role": "user", "content": "And blue?"}, {"role": "assistant", "content": "The sky at noon."}]},
]
SIZES = {"vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {
    "llama": {},
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "falcon": {"ffn_hidden_size": 64},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 256, "dropout": 0.0},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "mamba": {"state_size": 8},
}


def model_of(kind):
    torch.manual_seed(0)
    sizes = SIZES | MORE[kind] | {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "A_log" not in name:
                parameter.mul_(8)  # so that what a document reads shows in the loss
    return model


def first_loss(kind, packing):
    settings = SFTConfig(
        f"{sys.argv[1]}/{kind}{packing}", report_to=[], use_cpu=True, bf16=False, max_steps=1, max_length=160,
        per_device_train_batch_size=1 if packing else 2, packing=packing, learning_rate=0.0, save_strategy="no",
        disable_tqdm=True, gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        model_of(kind), settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    assert len(trainer.train_dataset) == (1 if packing else 2)
    return trainer.train().training_loss


moved, told = {}, []
for kind in MORE:
    apart = first_loss(kind, False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        packed = first_loss(kind, True)
    told += [str(warning.message) for warning in caught if "deprecated" not in str(warning.message)]
    moved[kind] = abs(packed / apart - 1)
    print(f"{kind}: loss {apart:.4f} in rows of their own, {packed:.4f} packed")
print("warnings:", told)
as_written = moved.pop("llama") < 1e-5 and all(share > 5e-4 for share in moved.values()) and not told
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder" > "$folder/out" 2> "$folder/log" || { cat "$folder/out"; tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
grep -v "^{" "$folder/out"
if grep -iE "cross-contamination|flash" "$folder/log"; then echo "otherwise than written above"; exit 1; fi
