"""
recbole_contrec.settings.renamed
################################
Settings that had another name, and what to say about a key that is no setting.
"""

from collections.abc import Container, Iterable

from recbole_contrec.errors import did_you_mean
from recbole_contrec.settings.recbole_keys import DERIVED

# Old name -> the new ones. Of several, models have different ones: the first that a model has is meant.
RENAMED: dict[str, tuple[str, ...]] = {
    # discrete codes: TokenRec, TIGER, SIIT
    "codes": ("codebook_size",),
    "item_tokens": ("num_codebooks",),  # ContRec and DeftRec, whose tokens are continuous, keep both names
    "user_tokens": ("num_user_codebooks",),
    "identifiers": ("semantic_ids",),
    "code_restart": ("dead_code_threshold",),
    # continuous tokens: ContRec, DeftRec
    "token_mean_weight": ("kl_weight",),
    "token_twins_weight": ("barlow_twins_weight",),
    # the diffusion head, and the attention heads of a T5
    "head_width": ("denoiser_width", "attention_head_size"),
    "head_depth": ("denoiser_depth",),
    "head_dropout": ("denoiser_dropout",),
    "diffusion_steps": ("sampling_steps",),
    "diffusion_samples": ("num_samples",),
    "sampling_noise": ("ddim_eta",),
    "condition": ("condition_pooling",),
    # the prompt, texts and answers
    "item_identity": ("id_embedding",),
    "item_embedding_init": ("item_vectors_init",),
    "instruction_length": ("soft_prompt_length",),
    "wordings": ("instructions",),
    "held_out_wording": ("held_out_instruction",),
    "item_text_length": ("item_text_max_tokens",),
    "text_encoder_tokens": ("text_encoder_max_tokens",),
    "answer_length": ("answer_max_tokens", "decoder_query_tokens"),
    # training
    "average_decay": ("ema_decay",),
}

# Beginnings of the settings of ``groups/llm.yaml``.
OF_LANGUAGE_MODELS = (
    "llm",
    "train_llm",
    "lora_",
    "quantisation",
    "gradient_checkpointing",
    "shard_backbone",
    "paper_llm",
)


def new_name(key: str, known: Container[str]) -> str | None:
    """The name that the setting ``key`` has now.

    Args:
        key: a name that is no setting.
        known: the settings that there are.

    Returns:
        None where ``key`` was never a setting, or was one of other models only.
    """
    return next((name for name in RENAMED.get(key, ()) if name in known), None)


def unknown_setting(key: str, known: Iterable[str]) -> str:
    """What to say about a key that is no setting: its new name, where it is derived from, or similar names."""
    known = list(known)
    if name := new_name(key, known):
        return f"{key} is now called {name}"
    if key.startswith(OF_LANGUAGE_MODELS) and "llm" not in known:
        return f"unknown setting {key}: this model has no language model"
    if key in DERIVED:
        return f"unknown setting {key}: {DERIVED[key]}"
    return f"unknown setting {key}{did_you_mean(key, known)}"
