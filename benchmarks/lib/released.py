"""
benchmarks.lib.released
#######################
What it costs to recommend as the code released with ContRec does, at the widths of our model.

That scheme answers one user at a time: the language model writes 64 tokens, each of which waits for the one before;
their states condition 200 denoising steps, each with one call for the condition and one without (classifier-free
guidance); the preference is then compared with the items of a list one after the other. Weights do not matter to the
clock, so they are random. Where there is a choice, the cheaper one is taken: keys and values are cached, the words to
choose from are few, the prompt is no longer than ours, the condition is a plain mean.
"""

from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder
from recbole_contrec.diffusion import DiffusionHead

TOKENS, STEPS, GUIDANCE = 64, 200, 2.0
WORDS = 1000  # a real vocabulary has a hundred times as many


class RowSeconds(NamedTuple):
    """Where the time of one user goes."""

    tokens: float
    diffusion: float
    scores: float

    @property
    def total(self) -> float:
        return sum(self)


class ReleasedScheme:
    """The scheme over networks of the widths that a configuration of ContRec names.

    Args:
        config: of ContRec.
        items: vectors of the catalogue [N, d].
        prompt_length: positions of a prompt (S).
        decoder: a language model with words, of D = ``decoder.hidden_size``; None for a compact one.
    """

    def __init__(self, config, items: Tensor, prompt_length: int, decoder: nn.Module | None = None):
        width = decoder.hidden_size if decoder is not None else config["hidden_size"]
        self.decoder = decoder or CausalDecoder(
            width,
            config["n_layers"],
            config["n_heads"],
            prompt_length + TOKENS,
            intermediate_size=config["inner_size"],
            n_words=WORDS,
            says=True,
        )
        self.decoder.eval()
        self.head = DiffusionHead(
            d=items.shape[1],
            condition_size=width,
            width=config["denoiser_width"],
            depth=config["denoiser_depth"],
            schedule="exp",
            levels=STEPS,
            guidance=GUIDANCE,
        ).eval()
        self.items = list(items)  # N times [d]

    @torch.no_grad()
    def recommend(self, prompt: Tensor) -> tuple[list[float], RowSeconds]:
        """Scores of all items for one user, and what they took.

        Args:
            prompt: vectors that the language model reads [S, D].
        """
        start = perf_counter()
        condition = self.write(prompt).mean(0, keepdim=True)  # [1, D]
        written = perf_counter()
        preference = self.denoise(condition)  # [d]
        denoised = perf_counter()
        scores = [float(preference @ item) for item in self.items]
        return scores, RowSeconds(written - start, denoised - written, perf_counter() - denoised)

    def write(self, prompt: Tensor) -> Tensor:
        """States of the tokens that follow a prompt, [S, D] -> [64, D]; the likeliest word is the next one read."""
        state, memory = self.decoder.start(
            prompt[None], torch.tensor([[len(prompt) - 1]], device=prompt.device), TOKENS
        )
        states, parents = [state[0, 0]], torch.zeros(1, 1, dtype=torch.long, device=prompt.device)
        while len(states) < TOKENS:
            word = self.decoder.read(self.decoder.word_logits(states[-1]).argmax())  # [D]
            state, memory = self.decoder.step(memory, word[None, None], parents)  # [1, 1, D]
            states.append(state[0, 0])
        return torch.stack(states)

    def denoise(self, condition: Tensor) -> Tensor:
        """A preference by ancestral sampling over all levels, [1, D] -> [d]."""
        schedule, none = self.head.schedule, self.head.none[None]
        x = torch.randn(1, self.head.d)
        for level in range(STEPS - 1, -1, -1):
            t = torch.tensor([level])
            given, free = (self.head.denoiser(x, t, schedule.signal(t), c).output for c in (condition, none))  # [1, d]
            x = schedule.step(x, (1 + GUIDANCE) * given - GUIDANCE * free, level, level - 1, eta=1.0)
        return x[0]
