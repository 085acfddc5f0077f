"""
recbole_contrec.model.semantic_ids.descriptions
###############################################
What describes an item to a language model that improves semantic ids: a vector, or its words.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import Encoded, PretrainedDecoder, Vocabulary
from recbole_contrec.data.text import filled, joined
from recbole_contrec.errors import UserError
from recbole_contrec.interface import ITEMS
from recbole_contrec.model.parts.code_table import CODE_RMS
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.model.semantic_ids.rewriting import Written
from recbole_contrec.model.semantic_ids.self_improvement import SelfImprovement
from recbole_contrec.model.semantic_ids.self_improvement_settings import WORDS, SelfImprovementSettings
from recbole_contrec.tokenizer import seen_rows

COMPACT_WORDS = 2000  # of the byte-pair vocabulary of a compact model, at most


class DescribedByVectors(SelfImprovement):
    """An item is described by one vector, which a linear map puts into the prompt.

    Args:
        n_items: N.
        size: d, width of a description.
        hidden_size: D.
        settings: of the self-improvement.
        scale: of what stands in a prompt beside words, see :class:`~recbole_contrec.backbone.Prompt`.
    """

    descriptions: Tensor  # [N, d]    of about unit variance

    def __init__(
        self, n_items: int, size: int, hidden_size: int, settings: SelfImprovementSettings, scale: float = 1.0
    ):
        super().__init__(settings)
        self.scale = scale
        self.register_buffer("descriptions", torch.zeros(n_items, size))
        self.to_prompt = nn.Linear(size, hidden_size)
        self.to_description = nn.Linear(hidden_size, size)
        self.marks = nn.Parameter(CODE_RMS * torch.randn(2, hidden_size))
        if scale != 1:  # as large as a word
            nn.init.normal_(self.to_prompt.weight, std=CODE_RMS / size**0.5)
            nn.init.zeros_(self.to_prompt.bias)
        self.requires_grad_(settings.alignment_weight > 0)  # its losses alone train it

    def describe(self, vectors: Tensor) -> None:
        """Take vectors [N, d] as descriptions."""
        self.descriptions.copy_(vectors)
        self._described = None

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"descriptions": ITEMS}

    def has_description(self) -> Tensor:
        return seen_rows(self.descriptions)

    def prompts(self, items: Tensor, decoder: CodeDecoder) -> Written:
        """Mark and description of items [m], two positions each."""
        mark = self.marks[0].expand(len(items), -1)
        return Written(self.scale * torch.stack([mark, self.to_prompt(self.descriptions[items])], dim=1))

    def telling_loss(self, items: Tensor, read: Tensor, decoder: CodeDecoder) -> Tensor:
        """One minus the cosine of the descriptions that the model tells, mean over items [m]."""
        mark = self.scale * self.marks[1].expand(len(items), 1, -1)
        told = self.to_description(decoder.state_behind(torch.cat([mark, read], dim=1)))
        return 1 - F.cosine_similarity(told, self.descriptions[items]).mean()


class DescribedByWords(SelfImprovement):
    """An item is described by its text in words, as in the paper: a pretrained language model's own, or those of a
    small vocabulary that is trained on the texts, each with a learned vector that is read and told.

    Args:
        words: of all items [N, T], by number.
        hidden_size: D.
        n_words: V, of a vocabulary of its own; 0 for the words of the language model.
        settings: of the self-improvement.
        scale: as above.
    """

    numbers: Tensor  # [N, T]
    lengths: Tensor  # [N]

    def __init__(
        self, words: Encoded, hidden_size: int, n_words: int, settings: SelfImprovementSettings, scale: float = 1.0
    ):
        super().__init__(settings)
        self.scale = scale
        self.register_buffer("numbers", words.numbers)
        self.register_buffer("lengths", words.lengths)
        self.marks = nn.Parameter(CODE_RMS * torch.randn(2, hidden_size))
        self.words = nn.Embedding(n_words, hidden_size) if n_words else None
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=CODE_RMS)
        self.requires_grad_(settings.alignment_weight > 0)

    def has_description(self) -> Tensor:
        return self.lengths > 0

    def prompts(self, items: Tensor, decoder: CodeDecoder) -> Written:
        """Mark and words of items [m], padded at the end."""
        mark = self.scale * self.marks[0].expand(len(items), 1, -1)
        vectors, length = self._words_of(items, decoder)
        return Written(torch.cat([mark, vectors], dim=1), 1 + length)

    def telling_loss(self, items: Tensor, read: Tensor, decoder: CodeDecoder) -> Tensor:
        """Cross entropy of the words behind the codes, mean over all words of items [m]."""
        mark = self.scale * self.marks[1].expand(len(items), 1, -1)
        vectors, length = self._words_of(items, decoder)  # [m, T', D]
        states = decoder.backbone.states_behind(torch.cat([mark, read], dim=1), vectors[:, :-1])  # [m, T', D]
        real = torch.arange(vectors.shape[1], device=items.device) < length[:, None]  # [m, T']
        logits = self._logits(states[real], decoder)  # padding asks for no scores, of which there are many
        return F.cross_entropy(logits, self.numbers[items, : vectors.shape[1]][real])

    def _words_of(self, items: Tensor, decoder: CodeDecoder) -> tuple[Tensor, Tensor]:
        """Vectors [m, T', D] of the words of items [m], no wider than the longest, and how many they are [m]."""
        length = self.lengths[items]
        numbers = self.numbers[items, : int(length.max())]
        return (self.words or decoder.history.backbone.read)(numbers), length

    def _logits(self, states: Tensor, decoder: CodeDecoder) -> Tensor:
        """Scores of the next word [n, V] in states [n, D]."""
        if self.words is None:
            return decoder.history.backbone.word_logits(states)
        return states @ self.words.weight.T


def self_improvement_of(
    config: Any,
    dataset: Any,
    num_codebooks: int,
    hidden_size: int,
    pretrained: PretrainedDecoder | None = None,
    scale: float = 1.0,
) -> SelfImprovement | None:
    """What the settings ask for, None where they leave semantic ids as they are.

    Args:
        dataset: whose item texts are read.
        num_codebooks: codes of a semantic id (K).
        hidden_size: D.
        pretrained: whose words are read; None for a compact language model.
        scale: of what stands in a prompt.

    Raises:
        ValueError: settings that would be ignored, or never refine anything.
        UserError: words are asked for, and there are no texts.
    """
    settings = SelfImprovementSettings.from_config(config, num_codebooks)
    if settings is None:
        return None
    if config["item_descriptions"] != WORDS:
        return DescribedByVectors(dataset.item_num, config["vector_size"], hidden_size, settings, scale)
    words, n_words = _words(config, dataset, pretrained)
    return DescribedByWords(words, hidden_size, n_words, settings, scale)


def _words(config: Any, dataset: Any, pretrained: PretrainedDecoder | None) -> tuple[Encoded, int]:
    """The texts of all items as words, T wide whatever they are, and the size of a vocabulary of their own."""
    texts, template = dataset.item_texts, config["description_template"]
    sentences = filled(template, texts, {"title": None, "category": None}) if template and texts else joined(texts)
    if not any(map(str.strip, sentences)):
        lack = "has item texts, but all are empty" if texts else "has no item texts (a .item file with text columns)"
        raise UserError(f"item_descriptions={WORDS}: {config['dataset']!r} {lack}; set item_descriptions=~")
    if pretrained is None:
        vocabulary, n_words = Vocabulary.trained(sentences, COMPACT_WORDS), COMPACT_WORDS
    else:
        vocabulary, n_words = Vocabulary(pretrained.vocabulary, pretrained.end_id), 0
    words = vocabulary.encode(sentences, config["description_max_tokens"])
    missing = config["description_max_tokens"] - words.numbers.shape[1]
    return words._replace(numbers=F.pad(words.numbers, (0, missing))), n_words
