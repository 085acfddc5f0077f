"""
recbole_contrec.backbone.language_model
#######################################
What the parts of this package ask of a language model that reads vectors and scores words.
"""

from typing import Any, Protocol

from torch import Tensor


class LanguageModel(Protocol):
    """Both :class:`~recbole_contrec.backbone.decoder.CausalDecoder` and
    :class:`~recbole_contrec.backbone.pretrained.PretrainedDecoder` are one.

    Axes: B prompts, S positions, W branches, D width, V words.
    """

    n_words: int

    def __call__(
        self, inputs: Tensor, positions: Tensor | None = None, visible: Tensor | None = None, prompt: int | None = None
    ) -> Tensor:
        """States [B, S, D] of prompts [B, S, D]."""

    def read(self, numbers: Tensor) -> Tensor:
        """Vectors of words: [...] -> [..., D]."""

    def word_logits(self, states: Tensor) -> Tensor:
        """Scores (logits) of the next word: [..., D] -> [..., V]."""

    def start(self, inputs: Tensor, at: Tensor, room: int) -> tuple[Tensor, Any]:
        """States at some positions of prompts, and the memory to go on from with ``room`` further positions."""

    def step(self, memory: Any, inputs: Tensor, parents: Tensor) -> tuple[Tensor, Any]:
        """States [B, W, D] of one more position behind each of some branches, and the memory with them in it."""
