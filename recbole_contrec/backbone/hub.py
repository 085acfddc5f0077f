"""
recbole_contrec.backbone.hub
############################
Models of transformers by name: found in a folder or in Hugging Face's cache (``HF_HOME``), fetched where the cache has
them not (``HF_HUB_OFFLINE`` forbids that, ``hf auth login`` opens what is closed), and refused in a line that says why.
Nothing that the Hub offers is executed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from recbole_contrec.errors import UserError
from recbole_contrec.packages import require

logger = logging.getLogger("recbole_contrec")

GGUF = ".gguf"  # one file with weights, mostly rounded to few bits, and tokenizer; of llama.cpp

_NO_TOKENIZER = "its files (tokenizer.json) are missing"


class Source(NamedTuple):
    """Where the files of a pretrained model lie.

    Attributes:
        name: as it was given.
        folder: on this machine.
        commit: of the Hub; None for a folder of one's own.
        file: name of a GGUF file in the folder, which holds model and tokenizer; None for a transformers folder.
    """

    name: str
    folder: Path
    commit: str | None
    file: str | None = None

    def load(self, what: str, load: Callable[..., Any]) -> Any:
        """What ``load(place, trust_remote_code=False)`` reads from local files or, where these do not hold it all,
        fetches.

        Raises:
            UserError: it can do neither.
        """
        # The cache is read as a folder: given the name, transformers asks the network for what a model need not have.
        packed = {"gguf_file": self.file} if self.file else {}
        ways: list[tuple[str, dict[str, Any]]] = [(str(self.folder), packed)] + [
            (self.name, {"revision": self.commit})
        ] * bool(self.commit)
        for place, options in ways:
            try:
                with _quiet("transformers.utils.logging"):
                    return load(place, trust_remote_code=False, **options)
            except Exception as error:  # transformers and tokenizers raise anything, bare Exception as well
                cause = error
        raise self.error(_why(what, cause)) from cause

    def config(self) -> Any:
        """Its configuration, of transformers."""
        from transformers import AutoConfig  # slow import, needed here only

        return self.load("configuration", AutoConfig.from_pretrained)

    def tokenizer(self) -> Any:
        """Its tokenizer, of transformers."""
        return self.load("tokenizer", _load_tokenizer)

    def error(self, why: str) -> UserError:
        """An error that begins with the name."""
        return UserError(f"{self.name}: {why}")


def find_model(name: str) -> Source:
    """A folder or a GGUF file as it is, or the folder in Hugging Face's cache that a name stands for; fetched where
    there is none yet.

    Raises:
        UserError: no such model, a package that a GGUF file needs is missing, or no network and nothing in the cache.
    """
    folder = Path(name).expanduser()
    if folder.is_file():
        if folder.suffix != GGUF:
            raise UserError(f"{name}: it is a file and no {GGUF}; name the folder that it lies in")
        for package in ("gguf", "accelerate"):  # transformers reads such files with these
            require(package, f"{name}: a {GGUF} file")
        logger.info("%s is unpacked each time it is read; a folder that save_pretrained has written is faster", name)
        return Source(name, folder.parent, None, folder.name)
    if not name or not folder.is_dir():
        folder = _cached_folder(name)
        return Source(name, folder, folder.name)
    if not (folder / "config.json").is_file() or not any([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        raise UserError(
            f"{name}: the folder holds no transformers model (config.json and *.safetensors); name one that "
            "save_pretrained has written"
        )
    return Source(name, folder, None)


def unpacked(model: Any) -> Any:
    """A model whose weights came from a GGUF file as if they came from a folder: transformers takes it for a quantised
    one, and refuses to change its numbers."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain, formats = type(model)(config), {name: parameter.dtype for name, parameter in model.named_parameters()}
    for name, parameter in plain.named_parameters():  # buffers are computed from no file, and stay exact
        parameter.data = parameter.data.to(formats[name])
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def _cached_folder(name: str) -> Path:
    """The folder in the cache, named by a commit."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    by_hand = (
        f"Fetch it where there is a network (hf download {name}) and set HF_HOME to that cache, or name its folder"
    )
    try:
        try:
            path = hf_hub_download(name, "config.json", local_files_only=True)
        except LocalEntryNotFoundError:
            if not constants.HF_HUB_OFFLINE:
                logger.info("%s is not in %s: fetching it", name, constants.HF_HUB_CACHE)
            with _quiet("huggingface_hub.utils.logging"):  # two lines for each of five attempts; the error says it once
                path = hf_hub_download(name, "config.json")
    except HFValidationError as error:
        raise UserError(
            f"{name or repr(name)}: there is no such folder, and models of Hugging Face are named OWNER/MODEL, for "
            "instance Qwen/Qwen3-0.6B"
        ) from error
    except GatedRepoError as error:
        raise UserError(f"{name}: accept its terms at https://huggingface.co/{name}, then run hf auth login") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: there is no such folder, and Hugging Face knows no such model or keeps it behind a login "
            "(hf auth login); check the name"
        ) from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "Hugging Face cannot be reached"
        raise UserError(
            f"{name}: there is no such folder, it is not in {constants.HF_HUB_CACHE}, and {why}. {by_hand}"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{name}: it has no config.json, so it is no transformers model") from error
    except Exception as error:  # of whatever library it uses for HTTP, or of the disk
        raise UserError(f"{name}: {_first_line(error)}. {by_hand}") from error
    return Path(path).parent


def _load_tokenizer(place: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    # Without its files transformers makes one up, to which all words are one.
    if len(set(map(tuple, tokenizer(["one", "two", "1", "2"])["input_ids"]))) == 1:
        raise OSError(_NO_TOKENIZER)
    return tokenizer


def _why(what: str, error: Exception) -> str:
    """What went wrong in transformers, and what to do about it."""
    text = str(error)
    if "trust_remote_code" in text:
        return "it brings code of its own, which is not executed: take a model that transformers knows"
    if "does not recognize this architecture" in text:
        return f"transformers {version('transformers')} does not know models of its kind: pip install -U transformers"
    if "FlashAttention2" in text or "flash_attn" in text:
        return "flash_attention_2 cannot be used: pip install flash-attn (needs an NVIDIA GPU), or take sdpa"
    if "instantiate the backend tokenizer" in text:
        error = OSError(_NO_TOKENIZER)
    if "ignore_mismatched_sizes" in text:
        return f"its {what} cannot be loaded: its weights have other sizes than its config.json says"
    for attention, sign in (
        ("sdpa", "scaled_dot_product_attention"),
        ("flash_attention_2", "does not support Flash Attention"),
    ):
        if sign in text:
            return f"transformers has no {attention} for it: take eager attention"
    return f"its {what} cannot be loaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet(module: str) -> Iterator[None]:
    """Nothing but errors from a library with a logging module of its own."""
    from importlib import import_module

    log = import_module(module)
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)
