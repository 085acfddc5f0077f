"""
recbole_contrec.item_vectors.text_encoder
#########################################
Texts as vectors of a pretrained language model: the mean of its last hidden states over the tokens of a text, at unit
length. Any model of transformers serves: an encoder (all-MiniLM-L6-v2), the encoder of a T5, a causal language model.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_contrec.backbone.hub import find_model, unpacked
from recbole_contrec.backbone.loading import untrained
from recbole_contrec.errors import UserError
from recbole_contrec.storage.stages import Report

TOKENS_A_BATCH = 8192  # padding included
CHARACTERS_A_CHUNK = 2**20  # tokenised at once: tokens of a long text take far more memory than its characters


class TokenisedTexts(NamedTuple):
    """Texts as token numbers, one after the other in a flat array.

    Attributes:
        tokens: [n] int32.
        offsets: [N + 1]; text i is ``tokens[offsets[i]:offsets[i + 1]]``, nothing for a text without a token of its
            own.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text [N]."""
        return np.diff(self.offsets)


class TextEncoder:
    """A pretrained language model that reads texts; its weights are loaded when the first text is encoded.

    Args:
        name: folder of a transformers model, or its name at Hugging Face. A name is looked up in the local cache
            (``HF_HOME``) first, and fetched where it is not there; ``HF_HUB_OFFLINE`` forbids that.
        max_tokens: where texts are cut, the tokenizer's own marks (``[CLS]``, ``</s>``) included.
        device: where the model computes, in single precision.
        random_seed: of random weights in the place of the trained ones, a control; None for the trained ones.

    Raises:
        UserError: there is no such model, it has no tokenizer, or it cannot read ``max_tokens`` tokens.
    """

    def __init__(self, name: str, max_tokens: int, device: torch.device | str = "cpu", random_seed: int | None = None):
        self.random_seed = random_seed
        self.name, self.max_tokens, self.device = name, max_tokens, torch.device(device)
        with _named_by_its_setting():
            self.source = find_model(name)
            self.config, self.tokenizer = self.source.config(), self.source.tokenizer()
        self._check_max_tokens()

    @cached_property
    def identity(self) -> str:
        """The model's commit at Hugging Face, or a hash of the files in its folder: changed weights are another
        encoder."""
        return self._identity_of_files() + ("" if self.random_seed is None else f" random {self.random_seed}")

    def _identity_of_files(self) -> str:
        if self.source.commit:
            return f"{self.name} {self.source.commit}"
        digest = hashlib.sha256()
        own = self.source.file  # of a GGUF file nothing beside it counts
        for path in sorted(
            path
            for path in self.source.folder.iterdir()
            if path.is_file() and not path.name.startswith(".") and own in (None, path.name)
        ):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors [N, D] of N texts, as :meth:`encode` gives them."""
        return self.encode(self.tokenise(texts))

    def tokenise(self, texts: Sequence[str], report: Report = lambda *_: None) -> TokenisedTexts:
        """Cut N texts into tokens, by the model's own tokenizer.

        Args:
            texts: N of them, or None for one that is not there.
            report: called as the work goes on.

        Raises:
            UserError: the tokenizer counts further than the model.
        """
        tokens: list[np.ndarray] = [np.zeros(0, dtype=np.int32)]
        lengths: list[int] = []
        for chunk in _chunks(map(_readable, texts)):
            found = self.tokenizer(chunk, truncation=True, max_length=self.max_tokens, return_special_tokens_mask=True)
            # Marks alone are no text.
            kept = [
                numbers if text and not all(marks) else []
                for text, numbers, marks in zip(chunk, found["input_ids"], found["special_tokens_mask"])
            ]
            lengths += map(len, kept)
            tokens.append(np.array([number for numbers in kept for number in numbers], dtype=np.int32))
            report(len(lengths), len(texts), "cut into tokens")
        flat = np.concatenate(tokens)
        words = getattr(self.config, "vocab_size", None)
        if words and flat.max(initial=0) >= words:
            raise self._error(
                f"its tokenizer gives number {flat.max()}, and the model knows {words:,} tokens: the two do "
                "not belong together"
            )
        return TokenisedTexts(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @torch.no_grad()
    def encode(self, texts: TokenisedTexts, report: Report = lambda *_: None) -> Tensor:
        """Mean of the last hidden states over the tokens of each text, at unit length.

        Texts of similar length are computed together, at most ``TOKENS_A_BATCH`` tokens at once, so that beside the
        result memory does not grow with their number.

        Returns:
            [N, D] float32 on the CPU; a text without tokens has a row of zeros (and D is 0 where there is no other).

        Raises:
            UserError: the model cannot be loaded, or gives numbers that are none.
        """
        longest_first = np.argsort(-texts.lengths, kind="stable")[: np.count_nonzero(texts.lengths)]
        vectors, done = torch.zeros(len(texts.lengths), 0), 0
        for rows in _batches(longest_first, texts.lengths):
            tokens, real = self._padded(texts, rows)  # [B, S] each
            states = self.model(input_ids=tokens, attention_mask=real.long()).last_hidden_state  # [B, S, D]
            means = states.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True)  # [B, D]
            if not vectors.shape[1]:
                vectors = torch.zeros(len(vectors), means.shape[1])
            vectors[torch.from_numpy(rows)] = F.normalize(means, dim=1).cpu()
            done += len(rows)
            report(done, len(longest_first), "longest first")
        if not torch.isfinite(vectors).all():
            raise self._error("its states are not finite: the weights are damaged")
        return vectors

    @cached_property
    def model(self) -> torch.nn.Module:
        """The module that gives a state a token, of an encoder-decoder its encoder."""
        with _named_by_its_setting():
            if self.random_seed is None:
                model = self.source.load("model", _load_model)
            else:
                model = untrained(_auto_model(), self.config, self.random_seed)
        model = unpacked(model) if self.source.file else model
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        model.config.use_cache = False  # keys and values of a prompt that nothing goes on from
        return model.float().to(self.device).eval()

    def _padded(self, texts: TokenisedTexts, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens of some texts [B, S], and which of them are real [B, S]. They are padded at the end, where no causal
        model looks, with any number: not every tokenizer has one for that, and the mask keeps it out."""
        lengths = texts.lengths[rows]
        real = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.zeros(real.shape, dtype=np.int64)
        tokens[real] = np.concatenate([texts.tokens[texts.offsets[row] : texts.offsets[row + 1]] for row in rows])
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(real).to(self.device)

    def _check_max_tokens(self) -> None:
        """Raises UserError where a text would have no token left, or more than the model has positions."""
        marks = self.tokenizer.num_special_tokens_to_add()
        most = min(self.tokenizer.model_max_length, getattr(self.config, "max_position_embeddings", None) or np.inf)
        if not marks < self.max_tokens <= most:
            wanted = (
                f"at least {marks + 1}, {marks} of which are marks" if self.max_tokens <= marks else f"at most {most}"
            )
            raise UserError(f"text_encoder_max_tokens={self.max_tokens}: {self.name} reads {wanted}")

    def _error(self, text: str) -> UserError:
        return UserError(f"text_encoder={self.name}: {text}")


@contextmanager
def _named_by_its_setting():
    """Errors about a model, which begin with its name, say which setting named it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"text_encoder={error}") from error


def text_encoder_of(config: Mapping[str, Any]) -> TextEncoder:
    """The encoder that ``text_encoder`` names."""
    seed = config["seed"] if config["random_weights"] in ("text_encoder", "both") else None
    return TextEncoder(config["text_encoder"], config["text_encoder_max_tokens"], config["device"], seed)


def _auto_model() -> Any:
    from transformers import AutoModel  # slow import, needed here only

    return AutoModel


def _load_model(place: str, **options: Any) -> Any:
    model, found = _auto_model().from_pretrained(place, output_loading_info=True, **options)
    unused = ("pooler.", "decoder.") if model.config.is_encoder_decoder else ("pooler.",)
    # What is missing starts at random, with a warning at most.
    if lost := sorted(name for name in found["missing_keys"] if not name.startswith(unused)):
        raise OSError(f"its files lack {len(lost)} of its tensors, such as {lost[0]}")
    if model.main_input_name != "input_ids":
        raise ValueError(f"it reads {model.main_input_name} and no texts")
    return model


# texts and batches


def _readable(text: str | None) -> str:
    """Without white space around it, and without halves of a character, which tokenizers refuse."""
    return (text or "").strip().encode("utf-8", "replace").decode()


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Some texts after the other that have ``CHARACTERS_A_CHUNK`` characters together, or a single longer one."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        if chunk and (characters + len(text) > CHARACTERS_A_CHUNK or len(chunk) == 1024):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += len(text)
    if chunk:
        yield chunk


def _batches(longest_first: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers [B] of texts that fill ``TOKENS_A_BATCH``, padding included, or of a single longer one."""
    first = 0
    while first < len(longest_first):
        count = max(1, TOKENS_A_BATCH // lengths[longest_first[first]])
        yield longest_first[first : first + count]
        first += count
