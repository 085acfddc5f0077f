"""
recbole_contrec.backbone.hub
############################
A pretrained language model and its tokenizer, from a folder or from the Hugging Face Hub as its own libraries find it
(``HF_HOME``, ``HF_HUB_OFFLINE``, ``hf auth login``). What cannot be had is refused in a line that says why.
"""

from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from recbole_contrec.errors import UserError

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", None)
QUANTISATIONS = (None, "4bit", "8bit")
KINDS = ("causal", "t5")
T5_FAMILY = ("t5", "mt5", "umt5")  # flan-T5 and T5 1.1 are t5 to transformers


class Pretrained(NamedTuple):
    """What was loaded: a language model in eval mode, and a fast tokenizer, both of transformers."""

    model: nn.Module
    tokenizer: "PreTrainedTokenizerFast"  # noqa: F821 - transformers is slow to import


def load_pretrained(name: str, kind: str, dtype: str, attention: str | None, quantisation: str | None) -> Pretrained:
    """Load a model; nothing that the Hub offers is executed.

    Args:
        name: of a model on the Hub, or a folder.
        kind: one of ``KINDS``: a causal language model, or an encoder-decoder of the ``T5_FAMILY``.
        dtype: a key of ``DTYPES``.
        attention: one of ``ATTENTIONS``; None for what transformers takes for the model.
        quantisation: one of ``QUANTISATIONS``.

    Raises:
        ValueError: a setting that is none of these, or two that do not go together.
        UserError: no such model, one that cannot be reached or read, one of another kind, one without a fast tokenizer
            or an end of text; or a package that is missing.
    """
    for key, value, choices in (("kind", kind, KINDS), ("dtype", dtype, DTYPES), ("attention", attention, ATTENTIONS),
                                ("quantisation", quantisation, QUANTISATIONS)):
        if value not in choices:
            raise ValueError(f"{key}={value!r}: choose one of {', '.join(map(str, choices))}")
    if attention == "flash_attention_2" and dtype == "float32":
        raise ValueError("attention=flash_attention_2 needs dtype=bfloat16 or float16")
    source = _source(name)
    # The small files first: a mistake shows before gigabytes are downloaded.
    config = _load_config(name, source)
    _check_kind(name, kind, config)
    tokenizer = _load_tokenizer(name, source)
    return Pretrained(_load_model(name, source, config, dtype, attention, quantisation), tokenizer)


def _source(name: str) -> str:
    """A folder as it is, or a name to look for on the Hub."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{name} holds no model: the folder needs the config.json, the weights and the tokenizer.json "
                            "that transformers' save_pretrained writes")
        return str(path)
    if not name or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"there is no folder {name!r}: give the folder of a pretrained model, or its name on "
                        "https://huggingface.co, such as Qwen/Qwen3-0.6B")
    return name


def _load_config(name: str, source: str):
    from transformers import AutoConfig

    with _explained(name):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


def _check_kind(name: str, kind: str, config) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if kind == "t5" and config.model_type not in T5_FAMILY:
        raise UserError(f"{name} is a {config.model_type} model, not a T5: take one such as google-t5/t5-small or "
                        "google/flan-t5-small; backbone=causal takes a causal language model")
    if kind == "causal" and (config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING):
        raise not_causal(name, config)


def not_causal(name: str, config) -> UserError:
    """The error of a model of another kind."""
    instead = "; TokenRec takes a T5 with backbone=t5" if config.model_type in T5_FAMILY else ""
    return UserError(f"{name} is a {config.model_type} model, not a causal language model: take one that reads from left "
                     f"to right, such as gpt2 or Qwen/Qwen3-0.6B{instead}")


def _load_tokenizer(name: str, source: str):
    from transformers import AutoTokenizer

    try:
        with _explained(name):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except UserError as error:
        if isinstance(error.__cause__, OSError) and not Path(source).is_dir():
            raise  # it was not the tokenizer, but the way to the Hub
        raise UserError(f"{name} has no fast tokenizer: its folder needs a tokenizer.json") from error
    # Without files some versions of transformers make one up, to which all words are one.
    if not tokenizer.is_fast or len({*map(tuple, tokenizer(["one", "two", "1", "2"])["input_ids"])}) == 1:
        raise UserError(f"{name} has no fast tokenizer: its folder needs a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name} has no end of text: its tokenizer_config.json needs an eos_token")
    return tokenizer


def _load_model(name: str, source: str, config, dtype: str, attention: str | None,
                quantisation: str | None) -> nn.Module:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    options = {_dtype_key(): DTYPES[dtype]}
    if attention is not None:
        options["attn_implementation"] = attention
    if quantisation is not None:
        options["quantization_config"] = _quantisation(quantisation, DTYPES[dtype])
    with _explained(name, attention):
        model, info = kind.from_pretrained(
            source, config=config, trust_remote_code=False, output_loading_info=True, **options)
    # What the files lack is drawn at random with a warning only; then nothing that the model says means anything.
    lacking = [key for key, _ in model.named_parameters() if key in info["missing_keys"]]
    if lacking:
        raise UserError(f"{name} is no whole language model: its files have no weights for {lacking[0]}"
                        + (f" and {len(lacking) - 1} more" if lacking[1:] else ""))
    return model


def _quantisation(bits: str, dtype: torch.dtype | str):
    """How weights are stored in 4 or 8 bits; they are computed with in ``dtype``."""
    try:
        version("bitsandbytes")
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise UserError(f"quantisation={bits} needs bitsandbytes: pip install 'recbole_contrec[quantised]'") from error
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    # NF4 with doubly quantised scales is the recipe of QLoRA (https://arxiv.org/abs/2305.14314).
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype)


def _dtype_key() -> str:
    """What ``from_pretrained`` calls the type of the weights; the old name warns in newer versions."""
    major, minor = version("transformers").split(".")[:2]
    return "dtype" if (int(major), int(minor)) >= (4, 56) else "torch_dtype"


@contextmanager
def _explained(name: str, attention: str | None = None):
    """What goes wrong in transformers, as an error of one or two lines that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, KeyError, AttributeError, TypeError) as error:
        text = str(error)
        first = text.strip().split("\n")[0]
        if "gated" in text:
            why = f"asks for its terms to be accepted at https://huggingface.co/{name}; then run `hf auth login`"
        elif "couldn't connect" in text or "offline mode" in text:
            why = (f"is not in the cache, and https://huggingface.co cannot be reached: run `hf download {name}` with a "
                   "network (HF_HOME says where it goes), or give the folder of a model")
        elif "valid model identifier" in text or "Repo id" in text or "Can't load the configuration" in text:
            why = ("is no folder and no model on https://huggingface.co: check the spelling; if it is private, run "
                   "`hf auth login`")
        elif "trust_remote_code" in text:
            why = "brings code of its own, which is not executed: take a model that transformers knows"
        elif "does not recognize this architecture" in text:
            why = f"is of a kind that transformers {version('transformers')} does not know: pip install -U transformers"
        elif "FlashAttention2" in text or "flash_attn" in text:
            why = "cannot use attention=flash_attention_2: pip install flash-attn (needs an NVIDIA GPU), or take sdpa"
        elif attention and ("scaled_dot_product_attention" in text or "does not support Flash Attention" in text):
            why = f"cannot use attention={attention}: take attention=eager"
        else:
            why = f"cannot be loaded: {first}"
        raise UserError(f"{name} {why}") from error
