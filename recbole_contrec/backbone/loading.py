"""
recbole_contrec.backbone.loading
################################
A pretrained language model and its tokenizer, checked to be of the kind that is asked for.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from recbole_contrec.backbone.hub import Source, find_model, unpacked
from recbole_contrec.errors import UserError

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedTokenizerFast

DTYPES: dict[str, torch.dtype | str] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", None)
QUANTISATIONS = (None, "4bit", "8bit")
KINDS = ("causal", "t5")
T5_FAMILY = ("t5", "mt5", "umt5")  # flan-T5 and T5 1.1 are t5 to transformers


class Pretrained(NamedTuple):
    """What was loaded: a language model in eval mode, and a fast tokenizer, both of transformers."""

    model: nn.Module
    tokenizer: "PreTrainedTokenizerFast"


def load_pretrained(
    name: str,
    kind: str,
    dtype: str,
    attention: str | None,
    quantisation: str | None,
    random_seed: int | None = None,
) -> Pretrained:
    """Load a model; nothing that the Hub offers is executed.

    Args:
        name: of a model on the Hub, a folder, or a GGUF file.
        kind: one of ``KINDS``: a causal language model, or an encoder-decoder of the ``T5_FAMILY``.
        dtype: a key of ``DTYPES``.
        attention: one of ``ATTENTIONS``; None for what transformers takes for the model.
        quantisation: one of ``QUANTISATIONS``.
        random_seed: draw the weights with it, as the architecture starts them, in place of the trained ones.

    Raises:
        ValueError: a setting that is none of these, or two that do not go together.
        UserError: no such model, one that cannot be reached or read, one of another kind, one without a fast tokenizer
            or an end of text; or a package that is missing.
    """
    for key, value, choices in (
        ("kind", kind, KINDS),
        ("dtype", dtype, DTYPES),
        ("attention", attention, ATTENTIONS),
        ("quantisation", quantisation, QUANTISATIONS),
    ):
        if value not in choices:
            raise ValueError(f"{key}={value!r}: choose one of {', '.join(map(str, choices))}")
    if attention == "flash_attention_2" and dtype == "float32":
        raise ValueError("flash_attention_2 needs a dtype of bfloat16 or float16")
    if random_seed is not None and quantisation is not None:
        raise ValueError(f"quantisation={quantisation}: random weights are not quantised, leave it out")
    source = find_model(name)
    # The small files first: a mistake shows before gigabytes are downloaded.
    config = source.config()
    _check_kind(name, kind, config)
    tokenizer = _load_tokenizer(source, config)
    if random_seed is not None:
        options = {} if attention is None else {"attn_implementation": attention}
        number_format = _stored(config) if dtype == "auto" else DTYPES[dtype]  # asked first: from_config writes its own
        model: Any = _stored_in(untrained(_auto_class(config), config, random_seed, **options), number_format, options)
        model.name_or_path = model.config._name_or_path = source.name
        return Pretrained(model, tokenizer)
    return Pretrained(_load_model(source, config, dtype, attention, quantisation), tokenizer)


def untrained(auto_class: Any, config: Any, seed: int, **options: Any) -> nn.Module:
    """A model of the architecture and sizes of a pretrained one, with random weights: the control that tells what the
    training of the weights is worth. They are drawn by the architecture's own rule, in single precision, and nothing
    else that is drawn depends on it.

    Args:
        auto_class: of transformers, such as ``AutoModel``.
        config: of transformers.
        options: further ones of ``from_config``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto_class.from_config(config, **{_dtype_key(): torch.float32}, **options).eval()


def _stored_in(model: Any, dtype: torch.dtype | str, options: dict[str, Any]) -> Any:
    """The model as transformers would load it from files in a number format: what it keeps in single precision all the
    same, such as the output layers of a T5's feed-forward blocks, and what it computes from no file, such as rotary
    frequencies, stay exact."""
    if dtype == torch.float32:
        return model
    form = {_dtype_key(): dtype, **options}
    return type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict(), **form).eval()


def _stored(config: Any) -> torch.dtype:
    """What the files keep weights in, float32 where they do not say."""
    return getattr(config, _dtype_key(), None) or torch.float32


def _check_kind(name: str, kind: str, config: Any) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if kind == "t5" and config.model_type not in T5_FAMILY:
        raise UserError(
            f"{name} is a {config.model_type} model, not a T5: take one such as google-t5/t5-small or "
            "google/flan-t5-small; backbone=causal takes a causal language model"
        )
    if kind == "causal" and (config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING):
        raise not_causal(name, config)


def _fills_gaps(config: Any) -> bool:
    """Whether it is of an architecture that reads both ways, such as BERT. transformers makes causal models of these
    too, so that their weights alone tell them apart; a tokenizer without an end of text says as much."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def not_causal(name: str, config: Any) -> UserError:
    """The error of a model of another kind."""
    instead = "; TokenRec takes a T5 with backbone=t5" if config.model_type in T5_FAMILY else ""
    return UserError(
        f"{name} is a {config.model_type} model, not a causal language model: take one that reads from left "
        f"to right, such as gpt2 or Qwen/Qwen3-0.6B{instead}"
    )


def _load_tokenizer(source: Source, config: Any) -> Any:
    tokenizer = source.tokenizer()
    if not tokenizer.is_fast:
        raise source.error("its tokenizer is not a fast one: its folder needs a tokenizer.json")
    if tokenizer.eos_token_id is None:
        if _fills_gaps(config):
            raise not_causal(source.name, config)
        raise source.error("it has no end of text: its tokenizer_config.json needs an eos_token")
    return tokenizer


def _load_model(source: Source, config: Any, dtype: str, attention: str | None, quantisation: str | None) -> nn.Module:
    kind = _auto_class(config)
    options: dict[str, Any] = {"config": config, _dtype_key(): DTYPES[dtype]}
    if attention is not None:
        options["attn_implementation"] = attention
    if quantisation is not None:
        options["quantization_config"] = _quantisation(quantisation, DTYPES[dtype])

    def load(place: str, **of_place: Any) -> Any:
        model, info = kind.from_pretrained(place, output_loading_info=True, **options, **of_place)
        # What the files lack is drawn at random with a warning only; then nothing that the model says means anything.
        if lacking := [key for key, _ in model.named_parameters() if key in info["missing_keys"]]:
            raise OSError(f"its files lack {len(lacking)} of its tensors, such as {lacking[0]}")
        return unpacked(model) if source.file else model

    model = source.load("language model", load)
    # What peft writes beside adapters: not a place in the cache.
    model.name_or_path = model.config._name_or_path = source.name
    return model


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _quantisation(bits: str, dtype: torch.dtype | str) -> Any:
    """How weights are stored in 4 or 8 bits; they are computed with in ``dtype``."""
    try:
        version("bitsandbytes")
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise UserError(f"quantisation={bits} needs bitsandbytes: pip install 'recbole_contrec[quantised]'") from error
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    # NF4 with doubly quantised scales is the recipe of QLoRA (https://arxiv.org/abs/2305.14314).
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
    )


def _dtype_key() -> str:
    """What ``from_pretrained`` calls the type of the weights; the old name warns in newer versions."""
    major, minor = version("transformers").split(".")[:2]
    return "dtype" if (int(major), int(minor)) >= (4, 56) else "torch_dtype"
