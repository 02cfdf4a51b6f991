"""The embedding on disk, read without torch, and the rows that nobody trained."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tutelage.audit.embedding_findings import embedding_findings
from tutelage.audit.embedding_rows import embedding_state, read_embedding, untrained_tokens, unused_rows
from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.system.files import cache_folder

ROWS, WIDTH = 416, 32
SMOLLM2 = sorted((cache_folder() / "models").glob("smollm2-135m-*"))


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    header, blobs, end = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def ordinary(seed: int = 0) -> np.ndarray:
    """Rows as training leaves them: around a common direction, each somewhere else."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 0.1, (ROWS, WIDTH)) + random.normal(0, 0.05, WIDTH)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer_folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((tiny_tokenizer_folder / name).read_bytes())
    settings = {"vocab_size": ROWS, "hidden_size": WIDTH}
    (tmp_path / "config.json").write_text(json.dumps(settings), "utf-8")
    return tmp_path


def written(folder: Path, rows: np.ndarray, name: str = "model.embed_tokens.weight") -> Path:
    write_safetensors(folder / "model.safetensors", {name: ("F32", rows)})
    return folder


def flagged(folder: Path) -> set[int]:
    found = untrained_tokens(folder, Tokenizer.load(folder))
    assert found is not None
    assert found.shape == (ROWS,)
    return set(np.flatnonzero(found).tolist())


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "wte.weight",
        "gpt_neox.embed_in.weight",
        "backbone.embeddings.weight",
        "model.language_model.embed_tokens.weight",
        "some.other.name.weight",
    ],
)
def test_the_embedding_is_found_by_name_or_shape(folder: Path, name: str) -> None:
    rows = ordinary()
    write_safetensors(
        folder / "model.safetensors",
        {"lm_head.weight": ("F32", rows + 1), "model.norm.weight": ("F32", rows[0]), name: ("F32", rows)},
    )
    found = read_embedding(folder)
    assert found is not None
    assert (found.name, found.rows) == (name, ROWS)
    np.testing.assert_array_equal(found.read([3, 7]), rows[[3, 7]])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_numbers_are_those_that_torch_reads(folder: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with the safetensors library for torch")
    from safetensors.torch import save_file

    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    rows = torch.from_numpy(ordinary()).to(kind)
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors")
    found = read_embedding(folder)
    assert found is not None
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.read(slice(0, ROWS)), rows.float().numpy())


def test_no_weights_is_no_answer(folder: Path) -> None:
    assert read_embedding(folder) is None
    assert untrained_tokens(folder, Tokenizer.load(folder)) is None


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 10**9) + b"{}", struct.pack("<Q", 4) + b"nope"])
def test_a_damaged_file_is_a_data_error(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_embedding(folder)


def test_a_file_that_was_cut_is_a_data_error(folder: Path) -> None:
    path = written(folder, ordinary()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="cannot be read"):
        read_embedding(folder)


def test_ordinary_and_random_rows_were_trained(folder: Path) -> None:
    """Rows straight from an initialiser differ from each other: that nobody trained them cannot be seen."""
    assert flagged(written(folder, ordinary())) == set()


def test_rows_at_zero_were_not(folder: Path) -> None:
    rows = ordinary()
    rows[[400, 412]] = 0
    rows[20] *= 1e-8
    assert flagged(written(folder, rows)) == {20, 400, 412}


def test_rows_at_the_mean_were_not(folder: Path) -> None:
    """Where resizing puts new rows."""
    rows = ordinary()
    rows[[401, 402]] = rows.mean(axis=0) + np.float32(1e-5)
    assert flagged(written(folder, rows)) == {401, 402}


def test_rows_at_one_point_with_unused_tokens_were_not(folder: Path) -> None:
    """Decay and a tied output layer bring all rows that no text feeds to the same place."""
    rows = ordinary()
    rows[[17, 402, *range(403, ROWS)]] = rows[5] * 1.5 + np.float32(0.02)
    rows[17] += np.float32(1e-4)
    assert flagged(written(folder, rows)) == {17, 402, *range(403, ROWS)}


def test_two_equal_rows_are_no_evidence(folder: Path) -> None:
    rows = ordinary()
    rows[400] = rows[401]
    assert flagged(written(folder, rows)) == set()


def test_control_tokens_without_training_are_an_error(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    rows = ordinary()
    rows[tokenizer.special_tokens["<|im_end|>"]] = 0
    embedding = read_embedding(written(folder, rows))
    assert embedding is not None
    state = embedding_state(embedding, tokenizer)
    found = {
        embedding_finding.key: embedding_finding
        for embedding_finding in embedding_findings(embedding, state, tokenizer, ["<|im_start|>", "<|im_end|>"])
    }
    assert found["control_tokens_untrained"].severity == "error"
    assert "<|im_end|>" in found["control_tokens_untrained"].evidence
    assert "<|im_start|>" not in found["control_tokens_untrained"].evidence
    assert "1 rows" in found["untrained_rows"].sentence


def test_a_vocabulary_size_that_is_not_that_of_the_weights(folder: Path) -> None:
    settings = {"vocab_size": ROWS + 8, "hidden_size": WIDTH}
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    embedding, tokenizer = read_embedding(written(folder, ordinary())), Tokenizer.load(folder)
    assert embedding is not None
    found = {
        embedding_finding.key
        for embedding_finding in embedding_findings(embedding, embedding_state(embedding, tokenizer), tokenizer, [])
    }
    assert found == {"control_tokens_trained", "rows_differ"}


def test_candidates_are_rows_that_exist(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert set(range(403, ROWS)) <= set(unused_rows(tokenizer, ROWS))
    assert max(unused_rows(tokenizer, 401)) < 401


@pytest.mark.skipif(not SMOLLM2, reason="SmolLM2-135M-Instruct was not converted here yet")
def test_the_reserved_tokens_of_a_real_model_are_found_and_its_control_tokens_are_not() -> None:
    tokenizer = Tokenizer.load(SMOLLM2[0])
    embedding = read_embedding(SMOLLM2[0])
    assert embedding is not None
    state = embedding_state(embedding, tokenizer)
    names = {tokenizer.fast.id_to_token(int(one)) for one in np.flatnonzero(state.untrained_V)}
    assert {"<file_sep>", "<gh_stars>", "<jupyter_code>", "<empty_output>"} <= names
    assert names.isdisjoint({"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<filename>", "<repo_name>"})
    assert len(names) == 15
    apart = np.sort(state.distance_V)
    assert apart[14] < 0.003
    assert apart[15] > 0.019
