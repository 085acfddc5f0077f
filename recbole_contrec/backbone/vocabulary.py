"""
recbole_contrec.backbone.vocabulary
###################################
From text to word numbers and back: the vocabulary of a pretrained model, or a small one trained on the texts of the
items.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

TEXTS_AT_ONCE = 4096


class Encoded(NamedTuple):
    """Texts as word numbers, padded at the end."""

    numbers: Tensor  # [..., T]
    lengths: Tensor  # [...]     real words of each

    def real(self) -> Tensor:
        """Which of the numbers are words, [..., T]."""
        return torch.arange(self.numbers.shape[-1], device=self.numbers.device) < self.lengths[..., None]


class Vocabulary:
    """The words of a language model ("word" is short for what its tokenizer makes of a text: words and parts of words).

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        end: number of the word that ends an answer.

    Attributes:
        end: as given.
    """

    SMALLEST = 300  # the 256 bytes that any text is made of, the end mark, and some words

    def __init__(self, tokenizer: Any, end: int):
        self.tokenizer, self.end = tokenizer, end

    @classmethod
    def trained(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """Byte-pair encoding (Sennrich et al. 2016) of lower-case texts with at most ``size`` words. It is built on
        bytes, so that no script and no emoji is unknown to it.

        Raises:
            ValueError: ``size`` is below :attr:`SMALLEST`.
        """
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        if size < cls.SMALLEST:
            raise ValueError(f"a vocabulary of {size} words is too small: at least {cls.SMALLEST}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=size,
                special_tokens=["</s>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        end = tokenizer.token_to_id("</s>")
        assert end is not None  # it is among the special ones above
        return cls(tokenizer, end)

    @classmethod
    def from_json(cls, text: str, end: int) -> "Vocabulary":
        """Back from :meth:`to_json`."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(text), end)

    def to_json(self) -> str:
        """Everything but the number of the end mark."""
        return self.tokenizer.to_str()

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], limit: int, ended: bool = False, marks: bool = False) -> Encoded:
        """Word numbers of texts, each cut behind ``limit`` words.

        Args:
            ended: put the end mark behind each text (also behind one that was cut, within the limit).
            marks: whether what looks like a mark of the tokenizer is one, as in a prompt; in the text of an item
                ``</s>`` is four characters.

        Returns:
            Encoded: as wide as the longest text.
        """
        self.tokenizer.encode_special_tokens = not marks
        most = 2 * limit * self._longest_word  # characters that cannot matter are not read
        found = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = [text[:most] for text in texts[start : start + TEXTS_AT_ONCE]]
            found += [
                encoding.ids[: limit - ended] + [self.end] * ended
                for encoding in self.tokenizer.encode_batch_fast(part, add_special_tokens=False)
            ]
        lengths = torch.tensor([len(numbers) for numbers in found], dtype=torch.long)
        widest = max([1, *map(len, found)])
        rows = [numbers + [self.end] * (widest - len(numbers)) for numbers in found]
        return Encoded(torch.tensor(rows, dtype=torch.long).view(len(found), widest), lengths)

    @cached_property
    def _longest_word(self) -> int:
        return max(map(len, self.tokenizer.get_vocab()))

    def decode(self, numbers: Tensor) -> list[str]:
        """Texts of word numbers [n, T], each up to its first end mark."""
        rows = [row[: row.index(self.end)] if self.end in row else row for row in numbers.tolist()]
        return [text.strip() for text in self.tokenizer.decode_batch(rows, skip_special_tokens=True)]
