"""
recbole_contrec.model.parts.language
####################################
The words of the items: what a language model reads of them, what it learns to answer, and which items an answer names.
"""

import json
import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import Answers, PretrainedDecoder, Vocabulary, Words, words_of
from recbole_contrec.backbone.language_model import LanguageModel
from recbole_contrec.data.text import filled, part_field
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.pretrained import changed

logger = logging.getLogger("recbole_contrec")

MANY_BEGINNINGS = 5000  # of texts: reading them takes a core more than a tenth of a second a user at width 64


@dataclass(frozen=True)
class LanguageSettings:
    """Which words a model reads and learns to say."""

    instructions: list[str]
    held_out_instruction: str | None
    prompt_text: str  # none, words or bag
    item_template: str
    item_text_max_tokens: int
    answer_weight: float  # 0 for no answers
    answer_template: str
    answer_max_tokens: int
    category_template: str
    asks_for_categories: bool  # whether a template that the texts cannot fill is an error
    title_field: str | None
    category_field: str | None
    vocabulary_size: int
    text_weight: float  # of the texts in the scores
    text_bonus: float

    @classmethod
    def from_config(cls, config: Any) -> "LanguageSettings":
        return cls(
            instructions=config["instructions"],
            held_out_instruction=config["held_out_instruction"],
            prompt_text=config["prompt_text"],
            item_template=config["item_template"],
            item_text_max_tokens=config["item_text_max_tokens"],
            answer_weight=config["answer_weight"],
            answer_template=config["answer_template"],
            answer_max_tokens=config["answer_max_tokens"],
            category_template=config["category_template"],
            asks_for_categories=bool(changed(config, "category_template")),
            title_field=config["title_field"],
            category_field=config["category_field"],
            vocabulary_size=config["vocabulary_size"],
            text_weight=config["text_weight"],
            text_bonus=config["text_bonus"],
        )


class Language(nn.Module):
    """Instruction and texts of the items as the settings ask for them, in the words of one vocabulary.

    The word vectors belong to the backbone, which is handed in where it is needed.

    Args:
        settings: which words.
        texts: text field -> one text an item, by internal number.
        hidden_size: width of the language model (D).
        vocabulary: of a pretrained model; None to train one on the texts.

    Attributes:
        vocabulary: of all words.
        answers: what the model learns to say (:class:`~recbole_contrec.backbone.Answers`), or None.
        categories: which category an answer names (:class:`Categories`); None without answers, or where nothing is
            called a category and nothing asks for it.

    Raises:
        UserError: the texts have not what a template names.
    """

    numbers: Tensor  # [N, T] words of the items in the prompt, where there are any
    lengths: Tensor  # [N]

    def __init__(
        self,
        settings: LanguageSettings,
        texts: dict[str, list[str]],
        hidden_size: int,
        vocabulary: Vocabulary | None = None,
    ):
        super().__init__()
        self.has_own_vocabulary = vocabulary is None
        named = {"title": settings.title_field, "category": settings.category_field}
        for part in filter(named.get, named):
            part_field(part, texts, named[part])  # a misspelt one is an error also where no template reads it
        self.mode = settings.prompt_text
        read = filled(settings.item_template, texts, named) if self.mode != "none" else []
        if read and not any(read):
            raise UserError(f"prompt_text={self.mode}: the texts of all items are empty")
        said = filled(settings.answer_template, texts, named) if settings.answer_weight else []
        sentences = [*settings.instructions, *filter(None, [settings.held_out_instruction])]
        self.vocabulary = vocabulary or Vocabulary.trained([*sentences, *read, *said], settings.vocabulary_size)
        self.words_per_item = 0  # positions in the prompt
        if read:
            encoded = self.vocabulary.encode(read, settings.item_text_max_tokens)
            self.words_per_item = encoded.numbers.shape[1] if self.mode == "words" else 0
            self.register_buffer("numbers", encoded.numbers)  # [N, T]
            self.register_buffer("lengths", encoded.lengths)  # [N]
        self.answers = None
        self.categories = None
        if said:
            if not any(said):
                raise UserError(f"answer_weight={settings.answer_weight:g}: the texts of all items are empty")
            self.answers = Answers(self.vocabulary.encode(said, settings.answer_max_tokens, ended=True), hidden_size)
            self.categories = _categories(settings, texts, named)
            if settings.text_bonus:
                self._check_answers(settings)
            if settings.text_weight and self.answers.beginnings > MANY_BEGINNINGS:
                logger.warning(
                    "text_weight: behind every history the beginnings of all texts are read, %d of them, which takes "
                    "long; shorter texts (answer_max_tokens, answer_template) have fewer",
                    self.answers.beginnings,
                )

    def _check_answers(self, settings: LanguageSettings) -> None:
        """Say so where the right answer about an item does not name the item's category."""
        if self.answers is None or self.categories is None:
            return
        right, own = self.categories.named(self.vocabulary.decode(self.answers.numbers)), self.categories.category_of
        if (share := float((right != own)[own > 0].float().mean())) > 0.01:
            logger.warning(
                "text_bonus: of %.0f %% of the items the whole answer does not name their category, for it is cut by "
                "answer_max_tokens=%d or answer_template=%s does not hold it",
                100 * share,
                settings.answer_max_tokens,
                settings.answer_template,
            )

    def get_extra_state(self) -> Tensor:
        """PyTorch's hook: a vocabulary of our own. Texts edited after training must not renumber its words."""
        packed = self.vocabulary.to_json().encode() if self.has_own_vocabulary else b"-"
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """PyTorch's hook."""
        if self.has_own_vocabulary:
            self.vocabulary = Vocabulary.from_json(state.cpu().numpy().tobytes().decode(), self.vocabulary.end)

    def add_items(self, count: int) -> None:
        """More items at the end of every table, without texts."""
        if self.mode != "none":
            self.numbers = torch.cat([self.numbers, self.numbers.new_zeros(count, self.numbers.shape[1])])
            self.lengths = torch.cat([self.lengths, self.lengths.new_zeros(count)])
        if self.answers is not None:
            self.answers.add_items(count)
        if self.categories is not None:
            self.categories.category_of = F.pad(self.categories.category_of, (0, count))

    @property
    def longest_answer(self) -> int:
        """Positions that an answer takes, 0 without any."""
        return 0 if self.answers is None else self.answers.longest

    def bag(self, backbone: LanguageModel, items: Tensor) -> Tensor | None:
        """Mean of the word vectors of items [B, L], [B, L, D], zero without words; None where the prompt has none of
        it."""
        if self.mode != "bag":
            return None
        real = torch.arange(self.numbers.shape[1], device=items.device) < self.lengths[items][..., None]  # [B, L, T]
        vectors = backbone.read(self.numbers[items]) * real[..., None]  # [B, L, T, D]
        return vectors.sum(-2) / real.sum(-1, keepdim=True).clamp(min=1)

    def with_bag(self, backbone: LanguageModel, read: Tensor, items: Tensor) -> Tensor:
        """Add :meth:`bag` of items [B, L] to the first of their tokens [B, L, K, D]."""
        bag = self.bag(backbone, items)
        return read if bag is None else torch.cat([read[:, :, :1] + bag[:, :, None], read[:, :, 1:]], dim=2)

    def word_counts(self, items: Tensor) -> Tensor | int:
        """Positions of the prompt that the words of items take: as ``items``, or 0."""
        return self.lengths[items] if self.mode == "words" else 0

    def words(self, backbone: LanguageModel, items: Tensor) -> Words | None:
        """The words of items [B, L], each in a position of its own; None where the prompt has none of it."""
        if self.mode != "words":
            return None
        return Words(backbone.read(self.numbers[items]), self.lengths[items], items > 0)


def _categories(
    settings: LanguageSettings, texts: dict[str, list[str]], named: dict[str, str | None]
) -> "Categories | None":
    try:
        return Categories(filled(settings.category_template, texts, named))
    except UserError:
        if settings.text_bonus or settings.asks_for_categories:
            raise
        return None  # answers may be about other things


def language_of(config: Any, dataset: Any, hidden_size: int, pretrained: PretrainedDecoder | None) -> Language | None:
    """:class:`Language` where the settings ask for words.

    Raises:
        UserError: they ask for words of the items, and the data set has no texts.
    """
    about_items = config["prompt_text"] != "none" or config["answer_weight"]
    if not about_items and not config["instructions"]:
        return None
    if about_items and not dataset.item_texts:
        key = "answer_weight" if config["answer_weight"] else "prompt_text"
        raise UserError(
            f"{key}={config[key]}: {config['dataset']!r} has no item texts (a .item file with text columns)"
        )
    vocabulary = Vocabulary(pretrained.vocabulary, pretrained.end_id) if pretrained else None
    return Language(LanguageSettings.from_config(config), dataset.item_texts, hidden_size, vocabulary)


class Categories(nn.Module):
    """Which category an answer names. Case and punctuation do not count.

    Args:
        texts: the category of every item; row 0 is the padding.

    Attributes:
        category_of: number of the category of every item [N], 0 = none.
    """

    category_of: Tensor

    def __init__(self, texts: list[str]):
        super().__init__()
        normal = [" ".join(words_of(text)) for text in texts]
        self._take(sorted({*normal[1:]} - {""}))
        category_of = [0, *(self.number.get(text, 0) for text in normal[1:])]
        self.register_buffer("category_of", torch.tensor(category_of))

    def get_extra_state(self) -> Tensor:
        """PyTorch's hook: the names. Texts edited after training must not renumber them."""
        return torch.frombuffer(bytearray(json.dumps([*self.number]).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """PyTorch's hook."""
        self._take(json.loads(state.cpu().numpy().tobytes()))

    def _take(self, names: list[str]) -> None:
        self.number = {name: place for place, name in enumerate(names, 1)}
        self.longest = max((name.count(" ") + 1 for name in names), default=0)

    def named(self, answers: list[str]) -> Tensor:
        """Numbers of the longest categories that the answers hold word by word [n], 0 = none."""
        return torch.tensor([self._named(words_of(answer)) for answer in answers], device=self.category_of.device)

    def _named(self, words: list[str]) -> int:
        for size in range(min(self.longest, len(words)), 0, -1):
            for start in range(len(words) - size + 1):
                if number := self.number.get(" ".join(words[start : start + size])):
                    return number
        return 0
