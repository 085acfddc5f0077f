"""
recbole_contrec.settings.method
###############################
Which parts of a paper's method a run has, read from its settings: a short standard description for logs, cards and
tables, so that a tuned variant and the recipe of a paper cannot be mistaken for one another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_contrec.showing import show

Settings = Mapping[str, Any]

# Settings that tell a kind of model. Others have some of them: RecBole's DiffRec has sampling_steps.
_READ_BY_ALL = {"MAX_ITEM_LIST_LENGTH"}
_READ_BY_DECODERS = _READ_BY_ALL | {"n_layers", "hidden_size", "item_vectors", "vector_size"}
_READ_BY_CONTINUOUS = _READ_BY_DECODERS | {
    "tokenizer",
    "item_tokens",
    "user_tokens",
    "noise_levels",
    "sampling_steps",
    "num_samples",
    "ranking_weight",
}
_READ_BY_ONE_PASS = _READ_BY_DECODERS | {"num_codebooks", "codebook_size", "ranking_weight", "pairwise_weight"}
_READ_BY_CODES = _READ_BY_DECODERS | {"num_codebooks", "codebook_size", "beam_size"}
_READ_BY_SASREC = _READ_BY_ALL | {"repeat_bias", "hidden_dropout_prob"}


@dataclass(frozen=True)
class Method:
    """The parts of a method, each in a few words; empty where a model has no such part.

    Attributes:
        language_model: compact or pretrained, its size or name, and what of it is trained.
        vectors: where the vectors of items come from, and whether they train.
        tokens: what the language model reads of an item.
        generation: how the next item is generated.
        loss: what the ranking is learned by.
        words: what is said in words, and where it counts.
        history: items that are read.
        repeats: whether items of the history get a learned bias.
        short: the few words that tell variants apart in a table.
    """

    language_model: str = ""
    vectors: str = ""
    tokens: str = ""
    generation: str = ""
    loss: str = ""
    words: str = ""
    history: str = ""
    repeats: str = ""
    short: str = ""

    @property
    def parts(self) -> dict[str, str]:
        """The parts by name, as a reader knows them."""
        return {name.replace("_", " "): text for name, text in vars(self).items() if text and name != "short"}

    def __str__(self) -> str:
        return " | ".join(self.parts.values())


def method_of(settings: Settings) -> Method | None:
    """The method that settings stand for; None for a model that has none of these parts, such as those of RecBole.

    What a model has is told by the settings that it reads, so presets and heirs are described like their base, and
    records of earlier versions by what they say: a setting that came later had no effect then.

    Args:
        settings: of a run, by key.
    """
    for read, describe in (
        (_READ_BY_CONTINUOUS, _continuous),
        (_READ_BY_ONE_PASS, _one_pass),
        (_READ_BY_CODES, _codes),
        (_READ_BY_SASREC, _sasrec),
    ):
        if read <= settings.keys():
            return describe(settings)
    return None


def differences(method: Method, other: Method) -> dict[str, tuple[str, str]]:
    """The parts in which a method differs from another one: what it has there, and what the other one has."""
    ours, theirs = method.parts, other.parts
    return {
        name: (ours.get(name, "none"), theirs.get(name, "none"))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    }


# models


def _continuous(settings: Settings) -> Method:
    """ContRec and DeftRec."""
    backbone, words = _language_model(settings), _words(settings)
    ranks = bool(settings["ranking_weight"])
    steps, samples = settings["sampling_steps"], settings["num_samples"]
    denoises = bool(settings.get("regression_weight", 1))
    # with one step the head answers as in the ranking loss, and no other loss has shown it a noisy vector
    ranking_head = steps == samples == 1 and not denoises and not settings.get("contrastive_weight")
    regression = settings.get("objective") == "regression" and not ranking_head
    counted = f"{steps} step{'s' * (steps > 1)}"
    if ranking_head:
        generation = "one pass of the head, no denoising"
    elif regression:
        generation = "regression, no diffusion"
    else:
        drawn = f"{samples} sample{'s' * (samples > 1)}"
        drawn = "mean" if steps == samples == 1 else drawn
        guidance = f", guidance {settings['guidance']:g}" if settings.get("guidance") else ""
        generation = f"diffusion of {settings['noise_levels']} levels, {counted}, {drawn}{guidance}"
    if negatives := settings.get("contrastive_weight") and settings.get("negatives_per_target"):
        generation += f", {negatives} negatives"
    losses = [
        *(["ranking loss"] if ranks else []),
        *(["denoising"] if denoises and not regression else []),
        *(["regression"] if denoises and regression else []),
        *(["dispersive loss"] if settings.get("dispersive_weight") else []),
    ]
    loss = " + ".join(losses) + " only" * (len(losses) == 1)
    drawn_in = f"{steps} diffusion step{'s' * (steps > 1)}" + (f", {samples} samples" if samples > 1 else "")
    users = settings["user_tokens"]
    counts = f"K={settings['item_tokens']}{f', users {users}' if users else ', no user tokens'}"
    kinds = {"sigma": "sigma-VAE", "plain": "VAE", "deterministic": "masked K-way encoder", "none": "whole vector"}
    return Method(
        language_model=backbone.long,
        vectors=_vectors(settings),
        tokens=f"{kinds.get(settings['tokenizer'], settings['tokenizer'])} {counts}"
        + _layout(settings, settings["item_tokens"]),
        generation=generation,
        loss=loss,
        words=words.long,
        history=_history(settings),
        repeats=_repeats(settings),
        short=_joined(
            backbone.short,
            words.short,
            _alike_short(settings),
            "no denoising" if ranking_head else "regression" if regression else drawn_in,
            "ranking loss" if ranks else "no ranking loss",
        ),
    )


def _one_pass(settings: Settings) -> Method:
    """TokenRec."""
    backbone = _language_model(settings)
    losses = ["ranking loss"] * bool(settings["ranking_weight"]) + ["pairwise loss"] * bool(settings["pairwise_weight"])
    return Method(
        language_model=backbone.long,
        vectors=_vectors(settings),
        tokens=f"masked vector quantiser {_counts_of_codes(settings)}" + _layout(settings, settings["num_codebooks"]),
        generation="one pass",
        loss=" + ".join(losses),
        words=_joined(_instructions(settings), _alike(settings)),
        history=_history(settings) + (", shuffled" if settings.get("shuffle_history") else ""),
        repeats=_repeats(settings),
        short=_joined(backbone.short, _alike_short(settings), "one pass", " + ".join(losses)),
    )


def _codes(settings: Settings) -> Method:
    """TIGER, SIIT and TokenRec-beam."""
    backbone = _language_model(settings)
    kinds = {"rqvae": "RQ-VAE", "rkmeans": "residual k-means", "pq": "product quantisation"}
    kind = settings.get("semantic_ids") or "masked vector quantiser"
    kind = kinds.get(kind, _name(kind))
    refined = _refined(settings)
    return Method(
        language_model=backbone.long,
        vectors=_vectors(settings),
        tokens=_joined(
            f"{kind} {_counts_of_codes(settings)}" + " in sums" * (settings.get("code_reading") == "sum"), refined
        ),
        generation=f"beam search, {settings['beam_size']} beams",
        loss="cross entropy of the codes",
        words=_described(settings),
        history=_history(settings),
        short=_joined(backbone.short, "beam search", refined),
    )


def _sasrec(settings: Settings) -> Method:
    """SASRec under the training of this package."""
    started = "vectors" in (settings.get("item_vectors_init"), settings.get("item_embedding_init"))
    old = settings.get("item_embedding_init") == "svd"  # as records of earlier versions have it
    source = _source(settings) or "svd" if started or old else "random"
    texts = "" if started or settings.get("train_text_columns", True) else f", texts of {_source(settings)}"
    return Method(
        language_model="SASRec's network",
        vectors=f"{source} at the start{texts}, trained",
        loss="ranking loss at every position",
        words=_alike(settings),
        history=_history(settings),
        repeats=_repeats(settings),
        short=_joined(
            "SASRec, loss at every position",
            f"{source} initialisation" if source != "random" else "",
            _alike_short(settings),
            _repeats(settings),
        ),
    )


# parts


@dataclass(frozen=True)
class _Told:
    long: str
    short: str


def _language_model(settings: Settings) -> _Told:
    name = settings.get("llm")
    if not name:
        kind = "compact T5" if settings.get("backbone") == "t5" else "compact"
        return _Told(f"{kind} {settings['n_layers']}x{settings['hidden_size']}", kind)
    rank = settings.get("lora_rank", 0)
    trained = f"LoRA of rank {rank}" if rank else "all weights trained"
    layers, adapted = settings.get("llm_layers"), settings.get("lora_layers")
    counted = "layer" if layers == 1 else f"{layers} layers"
    shown = _name(name) + (f", its first {counted}" if layers else "")
    trained += f" in {adapted} layers" if rank and adapted else ""
    if settings.get("random_weights") in ("llm", "both"):
        shown += " with random weights"
    if settings.get("train_llm") is False:
        return _Told(f"{shown}, frozen", f"{shown}, frozen")
    return _Told(f"{shown}, {trained}", f"{shown}{' LoRA' if rank else ''}")


def _vectors(settings: Settings) -> str:
    source = _source(settings)
    trained = ", trained" if settings.get("train_item_vectors") else ""
    if trained and settings.get("item_vectors_init") == "random":
        trained += " from random ones in the ranking"
    return f"{source} of {settings['vector_size']}{trained}" if source else ""


def _source(settings: Settings) -> str:
    """Where item vectors come from, and what is done with their texts."""
    source = str(settings.get("item_vectors") or "")
    if source.endswith(".npy"):
        return _name(source)
    if "text" not in source.split("+"):
        return source
    done = _joined(
        _encoder(settings),
        "whitened" if settings.get("text_whitening") else "",
        "not trained" if settings.get("train_text_columns") is False else "",
    )
    return source + (f" ({done})" if done else "")


def _encoder(settings: Settings) -> str:
    """The pretrained model that reads item texts."""
    if not (name := settings.get("text_encoder")):
        return ""
    return _name(name) + " with random weights" * (settings.get("random_weights") in ("text_encoder", "both"))


def _layout(settings: Settings, count: int) -> str:
    """Whether tokens share a position, and whether an item has a vector of its own: no paper has that."""
    shared = ", added up" if count > 1 and settings.get("item_positions") == "one" else ""
    return shared + (" + item vector" if settings.get("id_embedding") else "")


def _counts_of_codes(settings: Settings) -> str:
    size, count = settings["codebook_size"], settings["num_codebooks"]
    if "code_reading" in settings and str(settings.get("semantic_ids")).endswith((".json", ".npy")):
        count += 1  # TIGER's num_codebooks leaves out the last code, and a file has it as any other
    return f"K={count}{f' of {size}' if size else ''}"


def _words(settings: Settings) -> _Told:
    """Words of ContRec and DeftRec; a record without these settings was made without words."""
    read = {"words": "titles in the prompt", "bag": "titles as one vector"}.get(settings.get("prompt_text", "none"))
    answers = bool(settings.get("answer_weight"))
    condition = answers and settings.get("condition_on") == "answer"
    scored = answers and (settings.get("text_bonus") or settings.get("text_weight"))
    long = [
        *(["instructions"] if settings.get("instructions") else []),
        *([read] if read else []),
        *(["answers"] if answers else []),
        *(["condition: the answer"] if condition else []),
        *(["in the score"] if scored else []),
        *([_alike(settings)] if _alike(settings) else []),
    ]
    short = "words" if read or answers else ""
    return _Told(", ".join(long) or "no words", short)


def _refined(settings: Settings) -> str:
    """How a model of SIIT makes its codes anew; records without ``refine_from`` know descriptions alone."""
    if not settings.get("self_improve"):
        return ""
    if not settings.get("refine_rounds"):
        return "aligned"
    if settings.get("refinement") == "random":
        return "new ids at random"
    return f"self-improved from {settings.get('refine_from', 'descriptions')}"


def _instructions(settings: Settings) -> str:
    return "instructions" if settings.get("instructions") else "no words"


def _alike(settings: Settings) -> str:
    weight, encoder = settings.get("text_similarity", 0), _encoder(settings)
    if weight == 0:
        return ""
    read = f" ({encoder})" if encoder else ""
    return f"text similarity{read} in the score" + (", weight by validation" if weight is None else "")


def _alike_short(settings: Settings) -> str:
    """The same in short."""
    return "text similarity" if _alike(settings) else ""


def _described(settings: Settings) -> str:
    """The words of a model that generates codes, and what describes an item to it where it improves these."""
    if not settings.get("self_improve") or settings.get("refine_from", "descriptions") != "descriptions":
        return _instructions(settings)
    described = f"items described by {settings.get('item_descriptions') or settings.get('item_vectors')}"
    return _joined("instructions" if settings.get("instructions") else "", described)


def _history(settings: Settings) -> str:
    first = f" of the first {settings['first_n']}" if settings.get("first_n") else ""
    return f"{settings['MAX_ITEM_LIST_LENGTH']} items{first}"


def _repeats(settings: Settings) -> str:
    return "repeat bias" if settings.get("repeat_bias") else ""


def _name(path: Any) -> str:
    """A name of the Hub without its owner, or the last part of a path."""
    return Path(str(path)).name or show(path)


def _joined(*parts: str) -> str:
    """Those that are not empty, between commas."""
    return ", ".join(filter(None, parts))
