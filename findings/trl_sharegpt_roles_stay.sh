#!/usr/bin/env bash
# TRL 1.16.0: ShareGPT rows are converted in their keys alone, so turns are trained under the roles "human" and "gpt"
#
# SFTTrainer finds rows with `conversations` of `from` and `value` and prints that it converts them to ChatML. It renames
# the keys, and leaves the roles as ShareGPT has them: human and gpt. A template that writes the role of a turn (ChatML,
# as of SmolLM2 and Qwen) then renders "<|im_start|>gpt" where every server writes "<|im_start|>assistant". One expects
# user and assistant. No warning is given, the loss falls as usual, and what was learned stands behind a header that is
# never served. Rename the roles before the trainer sees the rows.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, trl 1.16.0): the trained text is
# "<|im_start|>human\nhi<|im_end|>\n<|im_start|>gpt\nyes<|im_end|>\n"; the same rows with roles user and assistant
# have the served header. Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 trl==1.16.0
cat > "$folder/show.py" <<'PYTHON'
import sys

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
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trained_text(rows):
    config = AutoConfig.for_model(
        "llama", vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    settings = SFTConfig(output_dir=sys.argv[1], report_to=[], use_cpu=True, bf16=False)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_config(config), settings, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return tokenizer.decode([token for token in trainer.train_dataset[0]["labels"] if token != -100])


sharegpt = trained_text([{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}])
messages = trained_text([{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}])
served = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False)
print("served prompt:", repr(served))
print("from messages:", repr(messages))
print("from ShareGPT:", repr(sharegpt))
as_written = messages.startswith(served) and sharegpt == (
    "<|im_start|>human\nhi<|im_end|>\n<|im_start|>gpt\nyes<|im_end|>\n"
)
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
