"""A GGUF file of the toy language model, as llama.cpp keeps it."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.helpers.files import STORIES

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path) -> None:
    """Write the weights and the tokenizer of ``STORIES``; the weights keep all their digits."""
    from gguf import GGUFWriter, TokenType

    config = json.loads((STORIES / "config.json").read_text())
    tokenizer = json.loads((STORIES / "tokenizer.json").read_text())["model"]
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    words = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    merged = {"".join(pair): -float(rank) for rank, pair in enumerate(tokenizer["merges"])}
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([merged.get(word, -1e4) for word in words])
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    writer.add_token_types(kinds + [TokenType.NORMAL] * (len(words) - len(kinds)))
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_unk_token_id(0)
    for name, values in load_file(STORIES / "model.safetensors").items():
        writer.add_tensor(*_packed(name, values.astype(np.float32), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _packed(name, values, config):
    """Name and values as llama.cpp has them: it pairs neighbouring coordinates in rotary attention."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", values
    if name == "model.norm.weight":
        return "output_norm.weight", values
    _, _, layer, *part, kind = name.split(".")
    part = ".".join(part)
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(part)
    if heads:
        rows, columns = values.shape
        paired = values.reshape(config[heads], 2, rows // config[heads] // 2, columns).swapaxes(1, 2)
        values = np.ascontiguousarray(paired.reshape(rows, columns))
    return f"blk.{layer}.{NAMES[part]}.{kind}", values
