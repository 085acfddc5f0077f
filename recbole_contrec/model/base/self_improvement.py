r"""
recbole_contrec.model.base.self_improvement
###########################################

Reference:
    Runjin Chen et al. "Enhancing Item Tokenization for Generative Recommendation through Self-Improvement."
    https://arxiv.org/abs/2412.17171
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.decoding import AllTuples, diverse_beam_search
from recbole_contrec.tokenizer import identifier_report, seen_rows, standardise, with_counter
from recbole_contrec.tokenizer.assignment import assign

ITEMS_A_SEARCH = 512  # whose identifiers are generated at once
OF_QUANTISING = ("refine_whitening",)
OF_WRITING = (
    "refine_candidates",
    "refine_groups",
    "refine_diversity",
    "refine_margin",
    "refine_crowding",
    "refine_assignment",
)
DISTANCES = 2**24  # between items that are computed at once
PRIOR_STATES = 3  # at the mean of all, with which the few states before a rare item are averaged


class Refined(NamedTuple):
    """Identifiers after a refinement, and what it changed."""

    codes: Tensor  # [N, K]
    report: dict[str, Any]
    vectors: Tensor | None = None  # [N, D] that they quantise, states of the model; None where they were not made so
    counts: Tensor | None = None  # [N] how often each item is a target


class SelfImprovement(nn.Module):
    """What a model that generates identifiers needs to improve them: items and identifiers are aligned in training, and at
    times all identifiers are made anew out of what the model has learned.

    An item is described by one vector, of its interactions or its texts. Alignment teaches the language model to write an
    identifier behind a description, and to tell the description from an identifier. A refinement makes identifiers of all items
    anew, in one of two ways (``refine_from``):

    - ``histories``: where the model expects an item is the mean of its states in front of the item's first code, over the
      training histories. These means are quantised (``quantised`` of the model says how), so items that follow the same
      histories share codes. What is read of the new codes, and what they are scored by, starts where their items lie.
    - ``descriptions``, the paper's: the model writes several identifiers behind the description of every item, which differ, and
      they are handed out so that all are distinct and none is less likely than the one before. The likeliest identifiers are
      generic ones, so no item moves to where more items shared the first codes before (``refine_crowding``): items that share
      them are harder to tell apart, as targets and in a history.

    NOTE:
        The paper leaves open how often, with which weights and how collisions are avoided; what is chosen here are settings.
        It describes items by their words, here any vector serves (``item_descriptions: text`` is nearest to it). Its
        alignment is a stage that returns at times; here it is a term of the loss in every step. Quantising anew is ours:
        identifiers written one item at a time rank no better than those before them.

    Axes: N items, K codes, D width of the language model, d width of a description, W candidates, m items of a batch.

    Args:
        n_items: N.
        size: d.
        hidden_size: D.
        settings: ``alignment_items``, ``refine_from``, ``refine_whitening``, ``refine_candidates``, ``refine_groups``,
            ``refine_diversity``, ``refine_margin``, ``refine_crowding``, ``refine_assignment`` and ``refinement``, as in
            ``properties/model/TIGER.yaml``.

    Raises:
        ValueError: the groups of the search cannot share the candidates evenly.
    """

    def __init__(self, n_items: int, size: int, hidden_size: int, settings: dict[str, Any]):
        super().__init__()
        if settings["refine_candidates"] % settings["refine_groups"]:
            raise ValueError(
                f"refine_groups={settings['refine_groups']} must divide "
                f"refine_candidates={settings['refine_candidates']}"
            )
        self.settings = settings
        self.register_buffer("descriptions", torch.zeros(n_items, size))  # of about unit variance
        self.to_prompt = nn.Linear(size, hidden_size)
        self.to_description = nn.Linear(hidden_size, size)
        self.marks = nn.Parameter(0.1 * torch.randn(2, hidden_size))  # begin a prompt: write codes, tell a description
        self._known_items: Tensor | None = None

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"marks"}

    def describe(self, vectors: Tensor) -> None:
        """Take vectors [N, d] as descriptions."""
        self.descriptions.copy_(vectors)
        self._known_items = None

    def losses(self, model) -> tuple[Tensor, Tensor]:
        """Of some items drawn at random: the cross entropy of their codes behind their descriptions, and one minus the cosine
        of the descriptions that the model tells from the codes."""
        known = self._known(model)
        drawn = known[torch.randint(len(known), (self.settings["alignment_items"],), device=known.device)]  # [m]
        codes = model.item_codes.codes[drawn]
        states = model.states_of_codes(self._prompts(drawn), codes)  # [m, K, D]
        mark = self.marks[1].expand(len(drawn), 1, -1)
        told = self.to_description(model.state_behind(torch.cat([mark, model.item_codes.read(codes)], dim=1)))
        return model.code_loss(states, codes), 1 - F.cosine_similarity(told, self.descriptions[drawn]).mean()

    @torch.no_grad()
    def refine(self, model, batches: Iterable) -> Refined:
        """New identifiers in place of those of ``model``, which stays as it is.

        With ``refinement: random``, the control, the same items move, and to the same identifiers, but who gets which is drawn.

        Args:
            batches: of training, for ``refine_from: histories``.
        """
        before = model.item_codes.codes
        codes, report, *made_of = (
            self._quantised(model, batches) if self.settings["refine_from"] == "histories" else self._written(model)
        )
        if self.settings["refinement"] == "random":
            codes = _shuffled(codes, before)
        changed = (codes != before)[self._with_codes(model)]
        return Refined(
            codes,
            {
                "share_changed": round(float(changed.any(1).double().mean()), 4),
                "share_of_codes_changed": [round(float(share), 4) for share in changed.double().mean(0)],
                **report,
                **identifier_report(codes, model.item_codes.unknown_code),
            },
            *made_of,
        )

    def _quantised(self, model, batches) -> Refined:
        """Identifiers of where the model expects the items."""
        found, own = states_before_items(model, batches), model.item_codes.codes
        vectors = found.means * (seen_rows(found.means) & self._with_codes(model))[:, None]
        vectors = standardise(whitened(vectors, self.settings["refine_whitening"]))
        try:
            codes = with_counter(self._all_quantised(model, vectors), model.item_codes.unknown_code)
        except (ValueError, FloatingPointError) as error:  # all that a run has learned must not be lost for this
            return Refined(own.clone(), {"failed": str(error)})
        return Refined(codes, {}, vectors, found.counts)

    def _all_quantised(self, model, vectors: Tensor) -> Tensor:
        """Codes [N, K - 1] of vectors [N, D], in which items without a vector take over that of another.

        What is nobody's next item is read in histories all the same: it takes the place of what is read most alike.
        """
        codes, expected = model.quantised(vectors).to(vectors.device), seen_rows(vectors)
        others, read = expected.nonzero().squeeze(1), model.item_codes.sums()
        theirs = read[others]
        for part in (self._with_codes(model) & ~expected).nonzero().squeeze(1).split(max(1, DISTANCES // len(others))):
            alike = others[torch.cdist(read[part], theirs).argmin(1)]
            codes[part], vectors[part] = codes[alike], vectors[alike]
        return codes

    def _written(self, model) -> Refined:
        """Identifiers that the model writes behind descriptions."""
        settings, none = self.settings, model.item_codes.unknown_code
        known = self._known(model)  # [n]
        own = model.item_codes.codes[known]  # [n, K]
        tree, found, likely = AllTuples(own.shape[1], none), [], []
        for part in known.split(ITEMS_A_SEARCH):
            prompts = self._prompts(part)  # [m, 2, D]
            writer = model.writer_behind(prompts, settings["refine_candidates"])
            found.append(
                diverse_beam_search(
                    tree, settings["refine_candidates"], writer, settings["refine_groups"], settings["refine_diversity"]
                )
            )
            likely.append(model.log_probs(prompts, model.item_codes.codes[part]))
        width = min(tuples.codes.shape[1] for tuples in found)
        candidates = torch.cat([tuples.codes[:, :width] for tuples in found])  # [n, W, K]
        scores = torch.cat([tuples.log_probs[:, :width] for tuples in found])  # [n, W]
        likely = torch.cat(likely)  # [n]
        # Items without a description want nothing, and nobody gets what they have.
        held = model.item_codes.codes[self._with_codes(model) & ~seen_rows(self.descriptions)]  # [h, K]
        if not settings["refine_crowding"]:
            scores = scores.masked_fill(more_crowded(own, candidates, held), -torch.inf)
        nothing = scores.new_full((len(held), width), -torch.inf)
        new = assign(
            torch.cat([own, held]),
            torch.cat([likely, nothing[:, 0]]),
            torch.cat([candidates, held[:, None].expand(-1, width, -1)]),
            torch.cat([scores, nothing]),
            settings["refine_margin"],
            settings["refine_assignment"],
        )[: len(own)].to(own.device)
        codes = model.item_codes.codes.clone()
        codes[known] = new
        other = (candidates != own[:, None]).any(2)  # its own, found again, may score higher by rounding
        better = (scores - likely[:, None] > settings["refine_margin"]) & other  # [n, W]
        return Refined(codes, {"share_wanting_change": round(float(better.any(1).double().mean()), 4)})

    def _known(self, model) -> Tensor:
        """Items with codes and a description [n]; refinements leave them the same."""
        if self._known_items is None:
            self._known_items = (self._with_codes(model) & seen_rows(self.descriptions)).nonzero().squeeze(1)
        return self._known_items

    def _with_codes(self, model) -> Tensor:
        """Which items have codes [N]."""
        return model.item_codes.codes[:, 0] != model.item_codes.unknown_code

    def _prompts(self, items: Tensor) -> Tensor:
        """What an identifier is written behind, for items [m]: [m, 2, D]."""
        mark = self.marks[0].expand(len(items), -1)
        return torch.stack([mark, self.to_prompt(self.descriptions[items])], dim=1)


class Expected(NamedTuple):
    """Where a model expects the items."""

    means: Tensor  # [N, D]    less the mean of all targets; zeros for items that are no target
    counts: Tensor  # [N]       targets


def states_before_items(model, batches: Iterable) -> Expected:
    """Where a model in eval mode expects each item: the mean of its states in front of the item's first code, over the targets of
    the batches.

    Few states say little, so :data:`PRIOR_STATES` more at the mean of all are averaged with them.
    """
    sums = counts = None
    sampled, model.sampled_prefixes = model.sampled_prefixes, None  # all targets, also of a T5 that is trained on some
    try:
        for interaction in batches:
            targets = model._targets(interaction)  # states [n, K, D]
            states = targets.states[:, 0].double()  # [n, D]
            if sums is None:
                sums, counts = (
                    states.new_zeros(model.n_items, width) for width in (states.shape[1], 1)
                )  # [N, D], [N, 1]
            sums.index_add_(0, targets.items, states)
            counts.index_add_(0, targets.items, states.new_ones(len(states), 1))
    finally:
        model.sampled_prefixes = sampled
    means = (sums - counts * sums.sum(0) / counts.sum()) / (counts + PRIOR_STATES)
    return Expected(means.float(), counts.squeeze(1).float())


def whitened(vectors: Tensor, share: float) -> Tensor:
    """Vectors [N, D], centred, that vary more alike along their principal axes, which stay where they are: a standard deviation
    s becomes s ** (1 - share). Rows of zeros stay zero.

    Most of where an item is expected says how popular it is, and how recent. Codes that say nothing else tell few items apart.
    """
    rows = seen_rows(vectors)
    centred = vectors[rows].double()
    centred = centred - centred.mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))  # [D], [D, D]
    scale = variance.clamp(min=1e-12 * float(variance.max())) ** (-share / 2)
    result = torch.zeros_like(vectors)
    result[rows] = (centred @ axes * scale @ axes.T).to(vectors)
    return result


def check_rounds(config, n_tokens: int) -> None:
    """Settings of self-improvement that would be ignored, or never refine anything.

    Args:
        config: with ``settings``, the defaults of the model.
        n_tokens: codes of an identifier (K).

    Raises:
        ValueError: names the settings.
    """
    every, written = config["refine_every"], config["refine_from"] == "descriptions"
    changed = [
        key
        for key, setting in config.settings.items()
        if key.startswith(("alignment_", "refine", "item_descriptions")) and config[key] != setting.default
    ]
    unread = [key for key in changed if key in (OF_QUANTISING if written else OF_WRITING)]
    if not config["self_improve"]:
        if changed:
            raise ValueError(f"{', '.join(changed)}: set self_improve=True as well")
    elif unread:
        raise ValueError(f"{', '.join(unread)}: not for refine_from={config['refine_from']}")
    elif not config["alignment_weight"] and "item_descriptions" in changed:
        raise ValueError("item_descriptions: nothing reads them with alignment_weight=0")
    elif config["refine_rounds"] and not written and n_tokens < 2:
        raise ValueError(
            "refine_from=histories: an identifier needs a code beside the last, which tells apart what shares it"
        )
    elif config["refine_rounds"] and written and not config["alignment_weight"]:
        raise ValueError(
            "alignment_weight=0: the model would refine identifiers without having learned to write them; set "
            "refine_rounds=0 as well"
        )
    elif config["refine_rounds"] and config["eval_step"] > 0 and every % config["eval_step"]:
        raise ValueError(
            f"eval_step={config['eval_step']}: a refinement is judged by validations right before and after it; "
            f"take a divisor of refine_every={every}"
        )
    elif config["refine_rounds"] and config["epochs"] <= every:
        raise ValueError(
            f"epochs={config['epochs']} end before the first refinement: lower refine_every={every}, or set "
            "refine_rounds=0 to align only"
        )
    elif config["refine_rounds"] and config["stopping_step"] * max(1, config["eval_step"]) < every:
        raise ValueError(
            f"stopping_step={config['stopping_step']} would end a run before a refinement is judged: raise it, "
            f"or lower refine_every={every}"
        )


def more_crowded(own: Tensor, candidates: Tensor, held: Tensor) -> Tensor:
    """Which candidates [n, W, K] share their first codes, all but the last two, with more other items than the item's own
    identifier does, [n, W] bool; with K up to 2, where nothing is left to share, none.

    Args:
        own: identifiers of the items [n, K].
        held: those of all other items [h, K].
    """
    n, first = len(own), max(own.shape[1] - 2, 0)
    if not first:
        return candidates.new_zeros(candidates.shape[:2], dtype=torch.bool)
    prefixes = torch.cat([own, held, candidates.flatten(0, 1)])[:, :first]
    _, number = prefixes.unique(dim=0, return_inverse=True)  # [n + h + n W]
    holders = torch.bincount(number[: n + len(held)], minlength=int(number.max()) + 1)  # items with a prefix
    own_number, number = number[:n, None], number[n + len(held) :].view(n, -1)  # [n, 1], [n, W]
    return holders[number] - (number == own_number).long() > holders[own_number] - 1


def _shuffled(new: Tensor, own: Tensor) -> Tensor:
    """New identifiers [n, K] dealt out at random among the items that move; as they were for the others.

    An identifier may be what another item gives up, so a draw can hand an item its own; such a draw does not count. There is
    always one that does, the order given.
    """
    moved = (new != own).any(1).nonzero().squeeze(1)
    while True:
        drawn = new[moved[torch.randperm(len(moved), device=moved.device)]]
        if (drawn != own[moved]).any(1).all():
            return new.index_copy(0, moved, drawn)
