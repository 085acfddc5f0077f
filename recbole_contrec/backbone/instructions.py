"""
recbole_contrec.backbone.instructions
################################
Instructions in words. All of them share one small vocabulary of learned word vectors, so one that is kept for testing
is new to the model as a sentence, not as words (TokenRec, section on unseen prompts, https://arxiv.org/abs/2406.10450).
"""

from collections.abc import Callable, Sequence
from unicodedata import category, normalize

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.vocabulary import Vocabulary


class Instructions(nn.Module):
    """Several instructions for one task: in training one is drawn for every row, in eval mode the held-out one.

    Shorter instructions are filled up in front with one learned blank, so that all rows keep one layout.

    Args:
        instructions: sentences to train with; case and punctuation do not count.
        held_out: the sentence of eval mode, made of words of ``instructions``; None for the first of these.
        hidden_size: width of a word vector (D).

    Attributes:
        length: words of an instruction (I).

    Raises:
        ValueError: no instruction, one without words, a held-out one that is trained or has a word of its own.
    """

    numbers: Tensor

    BLANK = 0

    def __init__(self, instructions: Sequence[str], held_out: str | None, hidden_size: int):
        super().__init__()
        sentences = [words_of(text) for text in instructions]
        if not sentences or not all(sentences):
            raise ValueError("instructions: name at least one sentence, each with at least one word")
        tested = sentences[0] if held_out is None else words_of(held_out)
        vocabulary = sorted({word for sentence in sentences for word in sentence})
        if unknown := [word for word in tested if word not in vocabulary]:
            raise ValueError(f"held_out_instruction: no instruction of the training has the words {', '.join(unknown)}")
        if not tested or held_out is not None and tested in sentences:
            raise ValueError(
                f"held_out_instruction={held_out!r} must have words, and not those of a training instruction"
            )
        self.length = max(map(len, [*sentences, tested]))
        self.vectors = nn.Embedding(1 + len(vocabulary), hidden_size)
        nn.init.normal_(self.vectors.weight, std=0.02)
        number = {word: place for place, word in enumerate(vocabulary, 1)}
        rows = [
            [self.BLANK] * (self.length - len(sentence)) + [number[word] for word in sentence]
            for sentence in [*sentences, tested]
        ]
        self.register_buffer("numbers", torch.tensor(rows), persistent=False)  # [instructions + 1, I], tested one last

    def forward(self, batch: int) -> Tensor:
        """Word vectors [B, I, D] of one instruction a row."""
        if not self.training:
            return self.vectors(self.numbers[-1]).expand(batch, -1, -1)
        drawn = torch.randint(len(self.numbers) - 1, (batch,), device=self.numbers.device)
        return self.vectors(self.numbers[drawn])  # [B, I, D]


class VocabularyInstructions(nn.Module):
    """The same in the words of a language model: what it knows of them comes from elsewhere, so the held-out one may
    have words of its own.

    Args:
        instructions: sentences to train with.
        held_out: the sentence of eval mode; None for the first of these.
        vocabulary: of the language model.
        read: from word numbers to vectors, [...] -> [..., D]; called at every use, so it may read what comes later.
        hidden_size: width of a word vector (D).

    Attributes:
        length: words of an instruction (I).

    Raises:
        ValueError: no instruction, or an empty one.
    """

    numbers: Tensor
    real: Tensor

    def __init__(
        self,
        instructions: Sequence[str],
        held_out: str | None,
        vocabulary: Vocabulary,
        read: Callable[[Tensor], Tensor],
        hidden_size: int,
    ):
        super().__init__()
        sentences = [*instructions, instructions[0] if held_out is None else held_out] if instructions else []
        if not sentences or not all(text.strip() for text in sentences):
            raise ValueError("instructions: name at least one sentence, each with at least one word")
        # No vocabulary makes more words of a sentence than it has bytes in its longest form, and a blank in front.
        words = vocabulary.encode(
            sentences, 1 + max(len(normalize("NFKD", text).encode()) for text in sentences), marks=True
        )
        self.length = words.numbers.shape[1]
        self.blank = nn.Parameter(torch.zeros(hidden_size))
        missing = self.length - words.lengths[:, None]  # in front [instructions + 1, 1]
        place = torch.arange(self.length) - missing  # in the sentence [instructions + 1, I]
        # Kept in checkpoints: a vocabulary trained on other texts numbers its words otherwise.
        self.register_buffer("numbers", words.numbers.gather(1, place.clamp(min=0)))
        self.register_buffer("real", place >= 0)
        self._read = read

    def forward(self, batch: int) -> Tensor:
        """Word vectors [B, I, D] of one instruction a row."""
        drawn = torch.full((batch,), len(self.numbers) - 1, device=self.numbers.device)
        if self.training:
            drawn = torch.randint_like(drawn, len(self.numbers) - 1)
        return torch.where(self.real[drawn][..., None], self._read(self.numbers[drawn]), self.blank)  # [B, I, D]


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation, in the one form of Unicode in which answers are written. Marks belong to
    their letters, as in Hindi or Thai, and what tells names apart stays: C++, C#, an emoji."""
    return "".join(sign if _names(sign) else " " for sign in normalize("NFKC", text).lower()).split()


def _names(sign: str) -> bool:
    return sign in "_+#" or category(sign)[0] in "LMN" or category(sign) in ("So", "Sc")
