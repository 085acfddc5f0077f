r"""
recbole_contrec.model.contrec
#############################

Reference:
    Haohao Qu et al. "Diffusion Generative Recommendation with Continuous Tokens." in WWW 2026.
    https://arxiv.org/abs/2504.12007
"""

import logging
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder, Prompt, VocabularyInstructions
from recbole_contrec.diffusion import DiffusionHead, NoiseSchedule
from recbole_contrec.model.base.generative import GenerativeRecommender, lengthen, rms_of_rows, room_for_history
from recbole_contrec.model.base.language import changed, check_language_model, language_of, pretrained_model
from recbole_contrec.model.base.windowed import Targets, repeat_rate
from recbole_contrec.retrieval import Retrieval
from recbole_contrec.storage.stages import Stage, StageResult
from recbole_contrec.tokenizer import SigmaVAE, WholeVector, health_report

logger = logging.getLogger("recbole_contrec")
warn_once = lru_cache(maxsize=None)(logger.warning)

TOKEN_RMS = 0.16  # size of a coordinate of what is read of an item before training (median on ml-100k)


class ContRecLoss(NamedTuple):
    """Weighted terms; the trainer minimises their sum and logs each by its name."""

    ranking: Tensor
    regression: Tensor
    dispersive: Tensor
    language: Tensor


class ContRec(GenerativeRecommender):
    r"""ContRec reads users and items as continuous tokens and generates the next preference by diffusion.

    A sigma-VAE turns collaborative vectors into K continuous tokens a user and an item; a causal language model
    reads the user's tokens and the history; after every item its state conditions a diffusion head, which
    generates a preference vector in the space of the item vectors; similarity to these ranks the catalogue.

    NOTE:
        What the paper leaves open or what ranks badly as published is decided in ``properties/model/ContRec.yaml``
        (ranks best) and ``ContRec-paper.yaml`` (the recipe as far as it is known); both say where and why.

    Axes: B batch, L history length, K tokens, D width of the language model, d width of an item vector,
    N items, M samples, n real positions of a batch.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        _check_settings(config)
        self.config = config
        self.n_users = dataset.num(self.USER_ID)
        pretrained = pretrained_model(config, PretrainedDecoder)
        self.hidden_size = hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]
        size = config["vector_size"]
        n_tokens, n_user_tokens = config["item_tokens"], config["user_tokens"]

        # tokenizers; filled by the stages and frozen, like the vectors they were trained on
        self.item_tokenizer = self._new_tokenizer(n_tokens)
        self.user_tokenizer = self._new_tokenizer(n_user_tokens) if n_user_tokens else None
        self.user_fold_in = self._new_user_fold_in(n_user_tokens)
        if self.user_tokenizer is not None:
            self.register_buffer("user_vectors", torch.zeros(self.n_users, size))
            # learned where it stands in for users in training; else new users without a history are read as the mean one
            self.unknown_user = nn.Parameter(
                torch.zeros(n_user_tokens, config["token_size"]), requires_grad=config["user_token_dropout"] > 0
            )
            self.user_adapter = TokenAdapter(n_user_tokens, config["token_size"], hidden_size)
        self.item_tokens = nn.Embedding(self.n_items, n_tokens * config["token_size"])
        self.item_tokens.weight.requires_grad_(config["train_item_tokens"])
        self.item_adapter = TokenAdapter(n_tokens, config["token_size"], hidden_size)

        # item vectors: the space in which preferences are generated and retrieved
        self.item_vectors = nn.Embedding(self.n_items, size)
        self.item_vectors.weight.requires_grad_(config["train_item_vectors"])
        # of one width, the vectors are read as they are: what is retrieved and what is read stay tied
        self.identity_adapter = nn.Linear(size, hidden_size, bias=False) if size != hidden_size else nn.Identity()

        # language model and head
        self.language = language_of(config, dataset, hidden_size, pretrained)
        self.prompt = Prompt(
            hidden_size,
            config["soft_prompt_length"],
            n_user_tokens,
            n_tokens,
            config["item_positions"],
            self.max_seq_length,
            self._wordings(),
            self.language.words_per_item if self.language else 0,
            pretrained.word_size / TOKEN_RMS if pretrained else 1.0,
        )
        answer = self.language.longest_answer if self.language else 0
        longest = self.prompt.max_positions + answer
        limit = min(
            longest,
            pretrained.longest_prompt(branches=answer > 0) if pretrained else longest,
            config["max_prompt_length"] or longest,
        )
        self.room = room_for_history(self.prompt, limit, answer)
        self.backbone = pretrained or self._new_backbone(limit)
        self.head = self._new_head()
        if config["objective"] == "denoising" and config["sampling_steps"] > 1:
            _warn_of_narrow_draws(config)
        self.retrieval = Retrieval(
            config["similarity"],
            config["temperature"],
            config["label_smoothing"],
            repeat_rate(dataset.histories) if config["repeat_bias"] else None,
            config["text_bonus"],
            config["text_weight"],
        )

        if not config["ranking_weight"]:
            self.retrieval.requires_grad_(False)  # its loss alone trains it
        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)
        nn.init.zeros_(self.item_tokens.weight)

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices; the name is that of timm's hook."""
        return {"unknown_user"}

    def _wordings(self):
        config = self.config
        if not config["instructions"]:
            return None
        return VocabularyInstructions(
            config["instructions"],
            config["held_out_instruction"],
            self.language.vocabulary,
            lambda numbers: self.backbone.read(numbers),
            self.hidden_size,
        )

    def _new_backbone(self, max_positions):
        config = self.config
        return CausalDecoder(
            config["hidden_size"],
            config["n_layers"],
            config["n_heads"],
            max_positions,
            config["dropout"],
            config["inner_size"],
            len(self.language.vocabulary) if self.language else 0,
            self.language is not None and self.language.answers is not None,
        )

    def _new_tokenizer(self, n_tokens):
        config = self.config
        if config["tokenizer"] == "none":
            return WholeVector()
        tokenizer = SigmaVAE(
            config["vector_size"],
            n_tokens,
            config["token_size"],
            config["tokenizer_hidden_size"],
            config["token_mask_ratio"],
            config["token_sigma"],
            config["tokenizer_dropout"],
            config["tokenizer"],
        )
        return tokenizer.requires_grad_(False).eval()

    def _new_head(self, **settings):
        config = self.config
        return DiffusionHead(
            d=config["vector_size"],
            condition_size=self.hidden_size,
            width=config["denoiser_width"],
            depth=config["denoiser_depth"],
            dropout=config["denoiser_dropout"],
            schedule=config["noise_schedule"],
            levels=config["noise_levels"],
            prediction=config["prediction"],
            noisy_skip=noisy_skip(config),
            guidance=float(config["guidance"]),
            condition_dropout=config["condition_dropout"],
            noise_draws=config["noise_draws"],
            dispersive=config["dispersive_loss"] if config["dispersive_weight"] else None,
            dispersive_temperature=config["dispersive_temperature"],
            objective=config["objective"],
            **settings,
        )

    # stages before training

    def stages(self, dataset) -> Iterator[Stage]:
        """Item vectors, then the tokenizers; see :mod:`recbole_contrec.storage.stages`."""
        vectors = {}
        yield from self.vector_stages(dataset, vectors)
        self._start_item_vectors(vectors["items"])
        if self.user_tokenizer is not None:
            self.user_vectors.copy_(vectors["users"])

        fitted = self.config["tokenizer"] != "none"
        tokenizer_keys = self._pick(
            "tokenizer",
            "token_size",
            "tokenizer_hidden_size",
            "token_mask_ratio",
            "token_sigma",
            "kl_weight",
            "barlow_twins_weight",
            "tokenizer_dropout",
            "tokenizer_epochs",
            "tokenizer_batch_size",
            "tokenizer_learning_rate",
            "seed",
        )
        if fitted:
            yield Stage(
                "item tokenizer",
                {**tokenizer_keys, "tokens": self.config["item_tokens"]},
                lambda report: self._fit_tokenizer(self.item_tokenizer, vectors["items"], report),
                self.item_tokenizer.load_state_dict,
            )
        self._set_item_tokens(torch.arange(self.n_items, device=self.device), vectors["items"].to(self.device))
        if fitted and self.user_tokenizer is not None:
            yield Stage(
                "user tokenizer",
                {**tokenizer_keys, "tokens": self.config["user_tokens"]},
                lambda report: self._fit_tokenizer(self.user_tokenizer, vectors["users"], report),
                self.user_tokenizer.load_state_dict,
            )

    def _fit_tokenizer(self, tokenizer, vectors, report) -> StageResult:
        return self._fit(
            tokenizer,
            vectors,
            report,
            health_report,
            mean_weight=self.config["kl_weight"],
            twins_weight=self.config["barlow_twins_weight"],
        )

    # RecBole's methods, beside those of the base class

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """Conditions after every item [B, L, D] for histories [B, L] padded at the end and users [B]."""
        prompt = self._read(item_seq, user)
        return self._conditions(prompt.after_items(self.backbone(prompt.vectors)))  # [B, L, D]

    def calculate_loss(self, interaction) -> ContRecLoss:
        """Mean loss over the targets of a batch: every position of a window, or the last one of RecBole's own rows."""
        targets, language = self._targets_and_language(interaction)
        regression = dispersive = targets.states.new_zeros(())
        if self.config["regression_weight"] or self.config["dispersive_weight"]:
            regression, dispersive = self.head.loss(targets.states, self._unit_scale(self.item_vectors(targets.items)))
        return ContRecLoss(
            self._ranking(targets),
            self.config["regression_weight"] * regression,
            self.config["dispersive_weight"] * dispersive,
            language,
        )

    # beyond RecBole's contract

    def add_items(self, count: int) -> None:
        super().add_items(count)
        lengthen(self.item_tokens, count)

    @torch.no_grad()
    def _preferences(self, conditions: Tensor) -> Tensor:
        """Sampled preference vectors [M, B, d] for conditions [B, D]."""
        if self.config["sampling_steps"] > 1 and self.head.space == "x0":
            warn_once(
                "the head was trained without noisy_skip: its draws of several steps are far too narrow; train it with "
                "--noisy_skip=True"
            )
        # one generator, on the CPU: a ranking must not depend on where it is computed
        generator = torch.Generator().manual_seed(self.config["seed"])
        return self.head.sample(
            conditions,
            self.config["sampling_steps"],
            self.config["num_samples"],
            float(self.config["guidance"]),
            self.config["ddim_eta"],
            generator,
            common_noise=True,
        )

    def _ranking(self, targets: Targets) -> Tensor:
        """The ranking loss, weighted."""
        weight = self.config["ranking_weight"]
        if not weight:
            return targets.states.new_zeros(())
        history = targets.histories() if self.config["repeat_bias"] else None
        return weight * self.retrieval.ranking_loss(
            self.head.estimate(targets.states),
            self.item_vectors.weight,
            targets.items,
            self.config["ranking_negatives"],
            history,
        )

    def _read_items(self, items: Tensor) -> Tensor:
        """What the language model reads for some items: [B, L] -> [B, L, K, D]."""
        tokens = self.item_tokens(items).unflatten(-1, (self.config["item_tokens"], -1))  # [B, L, K, token_size]
        if self.training and self.config["token_noise"]:
            tokens = self._noisy(tokens)
        read = self._with_identity(self.item_adapter(tokens), items)  # [B, L, K, D]
        bag = self.language.bag(self.backbone, items) if self.language else None
        return read if bag is None else torch.cat([read[:, :, :1] + bag[:, :, None], read[:, :, 1:]], dim=2)

    @torch.no_grad()
    def _set_item_tokens(self, items: Tensor, vectors: Tensor) -> None:
        """Tokens of some items [m] from their vectors [m, d]."""
        tokens = self.item_tokenizer.encode(vectors)  # [m, K, token_size]
        self.item_tokens.weight[items] = tokens.flatten(1) * (items > 0)[:, None]

    def _read_users(self, users: Tensor, item_seq: Tensor) -> Tensor | None:
        """Tokens of some users [B, K, D] with histories [B, L]. Users who were not in training are folded in; where
        nothing of their history is known, and for some users in training, the tokens are the learned stand-in."""
        if self.user_tokenizer is None:
            return None
        vectors = self.user_vectors[users]  # [B, d]
        if self.user_fold_in is not None and not self.training:
            new = (vectors == 0).all(1)
            vectors[new] = self.user_fold_in(item_seq[new])
        tokens = self.user_tokenizer.encode(vectors)  # [B, K, token_size]
        hidden = (vectors == 0).all(1)
        if self.training:
            # The vector of a training user was computed from his training targets as well; reading it every
            # time, the model would learn to look the answer up instead of reading the history.
            hidden = hidden | (torch.rand(len(users), device=users.device) < self.config["user_token_dropout"])
            tokens = self._noisy(tokens) if self.config["token_noise"] else tokens
        return self.user_adapter(torch.where(hidden[:, None, None], self.unknown_user, tokens))

    def _noisy(self, tokens: Tensor) -> Tensor:
        """The noise of the sigma-VAE on tokens [..., K, token_size], one level for the K tokens of an entity. Of
        the other tokenizers the means are read: a learned variance is drawn from while the tokenizer itself trains only."""
        if self.config["tokenizer"] != "sigma":
            return tokens
        level = self.config["token_sigma"] * torch.randn(*tokens.shape[:-2], 1, 1, device=tokens.device)
        return tokens + level * torch.randn_like(tokens)

    def _unit_scale(self, vectors: Tensor) -> Tensor:
        """Item vectors with about unit variance a coordinate, as the noise has: [..., d] -> [..., d]. The inner product
        also ranks by lengths, so for it one number scales all."""
        if self.config["similarity"] == "cosine":
            return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
        return vectors / rms_of_rows(self.item_vectors.weight.detach()[1:])


SMALL_SPREAD, ENOUGH = 0.1, 0.8


def _warn_of_narrow_draws(config) -> None:
    """Say so where the steps are too few for draws to differ as they should."""
    schedule = NoiseSchedule(config["noise_schedule"], config["noise_levels"])

    def share(steps):
        return schedule.spread(SMALL_SPREAD, steps, config["ddim_eta"]) / SMALL_SPREAD

    if (found := share(config["sampling_steps"])) < ENOUGH:
        counts = range(config["sampling_steps"], config["noise_levels"] + 1)
        place = bisect_left(counts, ENOUGH, key=share)
        remedy = (
            f"sampling_steps={counts[place]} keep"
            if place < len(counts)
            else "more noise_levels, all of them visited, would keep"
        )
        logger.warning(
            "sampling_steps=%d of noise_levels=%d (%s): where the truth spreads by %g around its mean, a perfect head "
            "draws %.0f %% of that; %s %.0f %%",
            config["sampling_steps"],
            config["noise_levels"],
            config["noise_schedule"],
            SMALL_SPREAD,
            100 * found,
            remedy,
            100 * ENOUGH,
        )


def _check_settings(config) -> None:
    """Stop where settings contradict each other.

    Raises:
        ValueError: says which.
    """
    check_language_model(config)
    if config["prompt_text"] == "none" and (unread := changed(config, "item_template", "item_text_max_tokens")):
        raise ValueError(f"{', '.join(unread)}: the prompt says nothing of the items, set prompt_text as well")
    of_answers = ("answer_template", "answer_max_tokens", "answers_per_window", "answer_beams", "answer_temperature")
    if not config["answer_weight"] and (unread := changed(config, *of_answers)):
        raise ValueError(f"{', '.join(unread)}: nothing is answered, set answer_weight as well")
    if config["answer_temperature"] and config["answer_beams"] > 1:
        raise ValueError(
            f"answer_temperature={config['answer_temperature']:g} draws one answer word by word: set answer_beams=1 as "
            "well"
        )
    if not config["ranking_weight"]:
        if config["repeat_bias"]:
            raise ValueError("repeat_bias is learned by the ranking loss: with ranking_weight=0 set repeat_bias=False")
        if config["train_item_vectors"]:
            raise ValueError(
                "item vectors are learned as targets by the ranking loss: with ranking_weight=0 set train_item_vectors="
                "False, or the targets of the denoising drift"
            )
    if not config["train_item_vectors"] and config["item_vectors_init"] == "random":
        raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
    if config["sampling_steps"] > config["noise_levels"]:
        raise ValueError(
            f"sampling_steps={config['sampling_steps']} visits more levels than "
            f"noise_levels={config['noise_levels']} has"
        )
    if config["objective"] == "regression":
        for key in ("sampling_steps", "num_samples", "noise_draws"):
            if config[key] != 1:
                raise ValueError(f"objective=regression draws no noise: leave {key} at 1, not {config[key]}")
    if config["tokenizer"] == "none":
        for key, most in dict(item_tokens=1, user_tokens=1, token_size=config["vector_size"]).items():
            if config[key] != most and (key, config[key]) != ("user_tokens", 0):
                raise ValueError(
                    f"tokenizer=none reads a whole vector in place of its tokens: set {key}={most}, not {config[key]}"
                )


def noisy_skip(config) -> bool:
    """Whether the head hands the noisy vector past its denoiser. The one-step mean ranks as well without."""
    if config["noisy_skip"] is None:
        return config["prediction"] != "x0" or config["sampling_steps"] > 1
    return config["noisy_skip"]


class TokenAdapter(nn.Module):
    """From the width of a token to the width of the language model, one linear map for each of the K tokens.

    It starts small: tokens of unit variance come out at 0.2, about as large as the learned item vectors beside them.
    """

    def __init__(self, n_tokens: int, token_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_tokens, token_size, hidden_size) * 0.2 * token_size**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_tokens, hidden_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., K, token_size] -> [..., K, D]."""
        return torch.einsum("...kt,ktd->...kd", tokens, self.weight) + self.bias
