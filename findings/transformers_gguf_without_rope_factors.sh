#!/usr/bin/env bash
# transformers 5.23.0: a Llama 3.1 or 3.2 read from GGUF loses its scaled positions, and answers otherwise from the start
#
# These models scale the frequencies of their rotary embedding (rope_type "llama3"). llama.cpp's converter has no key for
# it and writes one tensor, rope_freqs.weight, by which frequencies are divided; llama.cpp reads it. transformers, given
# such a file by gguf_file=, passes over the tensor and builds a model with plain positions. One expects the model that
# the file holds, or an error. Nothing is said of it. So who takes a GGUF file as a base trains and evaluates another
# model, and adapters learned on it do not fit the one that llama.cpp serves. After loading, set config.rope_parameters
# to those of the published config.json and build the model from that, or take the safetensors form.
#
# Seen when this was written (torch 2.13.0, transformers 5.23.0, gguf 0.19.0), a tiny Llama of random weights in fp32, 200
# tokens: with plain positions the file's logits are the model's to 1e-5; with llama3's, rope_type is "default" and logits
# are off by more than 10 %; with the factors put back they are the model's again.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cat > "$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
from gguf import GGUFWriter
from transformers import AutoConfig, AutoModelForCausalLM

folder, WIDTH, LAYERS, HEADS, VOCABULARY = Path(sys.argv[1]), 64, 2, 4, 96
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def model_with(rope):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=512, rope_parameters=rope,
        tie_word_embeddings=False,
    )).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def write(model, path):
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(128)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    for name, tensor in model.state_dict().items():
        if name in OUTER:
            writer.add_tensor(OUTER[name], tensor.numpy())
            continue
        _, _, layer, *inside, _ = name.split(".")
        if inside[-1] in ("q_proj", "k_proj"):  # the order of rotary pairs in a GGUF file
            tensor = tensor.reshape(HEADS, 2, -1, WIDTH).transpose(1, 2).reshape(WIDTH, WIDTH)
        writer.add_tensor(f"blk.{layer}.{NAMES['.'.join(inside)]}.weight", tensor.contiguous().numpy())
    frequencies = model.model.rotary_emb.inv_freq
    plain = 10000.0 ** -(torch.arange(0, WIDTH // HEADS, 2).float() / (WIDTH // HEADS))
    factors = plain / frequencies
    if not torch.allclose(factors, torch.ones_like(factors)):
        writer.add_tensor("rope_freqs.weight", factors.contiguous().numpy())
        print("rope_freqs.weight:", [round(factor, 2) for factor in factors.tolist()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ids = torch.randint(0, VOCABULARY, (1, 200), generator=torch.Generator().manual_seed(1))


def off(model, expected):
    with torch.no_grad():
        return float((model(input_ids=ids).logits - expected).norm() / expected.norm())


seen = {}
for name, rope in (("plain", PLAIN), ("llama3", LLAMA3)):
    model = model_with(rope)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    write(model, str(folder / f"{name}.gguf"))
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=f"{name}.gguf", dtype=torch.float32).eval()
    mended = model_with(rope)
    mended.load_state_dict(read.state_dict())
    seen[name] = (read.config.rope_parameters["rope_type"], off(read, expected), off(mended, expected))
    print(f"{name}: read as {seen[name][0]!r}, logits off by {seen[name][1]:.6f}; {seen[name][2]:.6f} with its own positions")
as_written = (
    seen["plain"][1] < 1e-5 and seen["llama3"][0] == "default" and seen["llama3"][1] > 0.1 and seen["llama3"][2] < 1e-5
)
print("as written" if as_written else "otherwise")
sys.exit(0 if as_written else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder" 2> "$folder/log" || { tail -5 "$folder/log"; echo "otherwise than written above"; exit 1; }
