"""
recbole_contrec.backbone.probe
##############################
What a pretrained model does with what it is given, tried out on a few words when it is loaded: transformers holds very
many architectures, and what one of them does not know it often ignores in silence.
"""

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.language_model import LanguageModel

CLOSE = 0.3  # of the distance to the wrong answer; half precision stays far below it


@torch.no_grad()
def reads_from_left_to_right(decoder: LanguageModel, words: Tensor) -> bool:
    """Whether a state is blind to what comes after it. Masked language models are loaded as causal ones as well.

    Args:
        decoder: with ``read`` and ``forward``.
        words: three different ones [3].
    """
    first, second, third = words.tolist()
    states = decoder(decoder.read(words.new_tensor([[first, second], [first, third]])))  # [2, 2, D]
    before, at = (states[0] - states[1]).norm(dim=-1)
    return bool(before <= CLOSE * at)


@torch.no_grad()
def scores_words(decoder: LanguageModel, model: nn.Module, words: Tensor) -> bool:
    """Whether word scores are those of the model itself, which may scale them in a way that nobody knows here.

    Args:
        decoder: with ``read``, ``forward`` and ``word_logits`` [..., V].
        model: the causal language model inside it.
        words: any [n].
    """
    ours = decoder.word_logits(decoder(decoder.read(words)[None]))  # [1, n, V]
    theirs = model(input_ids=words[None], use_cache=False).logits.float()[..., : ours.shape[-1]]
    real = ours.isfinite()  # numbers without a word have none
    return bool((ours - theirs)[real].norm() <= 0.05 * theirs[real].norm())


@torch.no_grad()
def reads_branches(decoder: LanguageModel, words: Tensor) -> bool:
    """Whether masks and position numbers are obeyed, in a prompt with branches and in steps after one.

    Args:
        decoder: with ``read``, ``forward``, ``start`` and ``step``.
        words: three different ones [3]; the third shall follow the first, past the second.
    """
    inputs = decoder.read(words)[None]  # [1, 3, D]
    right, wrong = decoder(inputs[:, [0, 2]])[0, 1], decoder(inputs)[0, 2]  # [D] each
    visible = torch.ones(1, 3, 3, dtype=torch.bool, device=words.device).tril()
    visible[0, 2, 1] = False
    try:
        branched = decoder(inputs, words.new_tensor([[0, 1, 1]]), visible)[0, 2]
        _, memory = decoder.start(inputs[:, :1], words.new_zeros(1, 1), room=2)
        stepped = decoder.step(memory, inputs[:, 1:], words.new_zeros(1, 2))[0][0, 1]
    except Exception:  # whatever an architecture without masks or caches makes of these, it means no
        return False
    return all(bool((found - right).norm() <= CLOSE * (wrong - right).norm()) for found in (branched, stepped))
