"""
recbole_contrec.model.parts.unread
##################################
Settings that have an effect under another setting only, and what is said where that one is off.

What a user gives and nothing reads is refused where it belongs to a part or a source that is not there. Numbers of a
part that is off are named in a warning: settings files carry them for several models, and searches for several values
of the other setting. What the YAML of a model, a preset or a data set says is never complained of.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.sources import SOURCES, methods_of
from recbole_contrec.model.parts.pretrained import changed
from recbole_contrec.showing import show

logger = logging.getLogger("recbole_contrec")

_OF_VECTORS = ("rkmeans", "pq")  # semantic ids, new ones as well, from item vectors without a network


class Dependent(NamedTuple):
    """Settings that are read in some runs only.

    Attributes:
        keys: of the settings; a model need not have all.
        is_read: whether anything reads them in a run. A setting that the model does not have is None there.
        why: what is lacking where nothing does.
    """

    keys: tuple[str, ...]
    is_read: Callable[[Any], bool]
    why: str


def _from_lightgcn(config: Any) -> bool:
    return any(config[key] and "lightgcn" in methods_of(config[key]) for key in SOURCES)


def _reads_items(config: Any) -> bool:
    return config["prompt_text"] != "none" or config["answer_weight"] > 0


def _names(part: str) -> Callable[[Any], bool]:
    """Whether a template that is filled in a run holds this part of an item."""

    def is_read(config: Any) -> bool:
        answers = config["answer_weight"] > 0
        filled = {
            "item_template": config["prompt_text"] != "none",
            "answer_template": answers,
            "category_template": answers and config["text_bonus"] > 0,
        }
        return any(f"{{{part}}}" in config[template] for template, read in filled.items() if read)

    return is_read


def _has_own_words(config: Any) -> bool:
    return config["llm"] is None and (_reads_items(config) or bool(config["instructions"]))


def _fits_a_tokenizer(config: Any) -> bool:
    """Whether a network turns vectors into tokens or codes."""
    if config["tokenizer"] == "none":
        return False
    method = config["semantic_ids"]
    if method in (None, "rqvae"):  # None: TokenRec's own
        return True
    if config["num_user_codebooks"] is not None:  # the items have codes already
        return config["num_user_codebooks"] > 0
    quantised_anew = config["self_improve"] and config["refine_from"] == "histories" and config["refine_rounds"] > 0
    return quantised_anew and method not in _OF_VECTORS


def _reads_texts(config: Any) -> bool:
    """Whether anything that is trained or scored reads item texts."""
    named = [config[key] for key in SOURCES if config[key]]
    compared = "text_similarity" in config.settings and config["text_similarity"] != 0  # None: validation may want them
    said = "prompt_text" in config.settings and _reads_items(config)
    return compared or said or "words" in named or any("text" in methods_of(name) for name in named)


def _reads_vectors(config: Any) -> bool:
    """Whether item vectors become anything: tokens or codes, what is learned of items, or what describes them."""
    if "semantic_ids" not in config.settings or config["self_improve"] or _fits_a_tokenizer(config):
        return True
    begun = config["code_vectors_init"] == "vectors" or bool(config["id_embedding"])
    return begun or config["semantic_ids"] in (*_OF_VECTORS, "random")  # random ones tell which items are known


def _denoises(config: Any) -> bool:
    """Whether the head answers to noisy vectors in training."""
    return any(config[key] for key in ("regression_weight", "dispersive_weight", "contrastive_weight"))


# Of the vectors that are computed before training.
OF_SOURCES = (
    Dependent(("lightgcn_epochs",), _from_lightgcn, "no vectors come from LightGCN, set item_vectors=lightgcn as well"),
    Dependent(
        ("text_encoder_max_tokens",),
        lambda config: config["text_encoder"] is not None,
        "no text encoder reads item texts, set text_encoder as well",
    ),
)

REFUSED = (
    *OF_SOURCES,
    Dependent(
        ("llm_learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_layers"),
        lambda config: config["llm"] is None or config["train_llm"],
        "train_llm=False trains no weight of llm",
    ),
    Dependent(
        ("lora_alpha", "lora_dropout", "lora_targets"),
        lambda config: config["llm"] is None or config["lora_rank"] > 0,
        "with lora_rank=0 all weights are trained and there are no adapters, set lora_rank as well",
    ),
    Dependent(
        ("title_field", "category_field"),
        _reads_items,
        "nothing is read or said of the items, set prompt_text or answer_weight as well",
    ),
    Dependent(
        ("category_template",),
        lambda config: config["answer_weight"] > 0,
        "nothing is answered, set answer_weight as well",
    ),
    Dependent(
        ("vocabulary_size",),
        _has_own_words,
        "no vocabulary is trained: an llm brings its own, and without prompt_text, answer_weight and instructions "
        "there are no words",
    ),
    Dependent(
        ("sampled_prefixes", "decoder_query_tokens"),
        lambda config: config["backbone"] == "t5",
        "of a T5, set backbone=t5 as well",
    ),
    Dependent(
        ("random_weights",),
        lambda config: config["random_weights"] != "llm" or "llm" in config.settings,
        "this model has no language model",
    ),
    Dependent(
        ("paper_llm", "paper_text_encoder", "paper_vector_size"),
        lambda config: False,
        "this tells what the paper has, and nothing is loaded by it: set llm, text_encoder or vector_size",
    ),
)

NAMED = (
    Dependent(
        ("hidden_size", "n_layers", "n_heads", "inner_size"),
        lambda config: config["llm"] is None,
        "of the compact language model, and llm stands in its place; llm_layers says how many layers of it are used",
    ),
    Dependent(
        ("dropout",),
        lambda config: config["llm"] is None or bool(config["projection_size"]),  # the projection has dropout as well
        "of the compact language model, and llm stands in its place; lora_dropout is that of its adapters",
    ),
    Dependent(
        (
            *("tokenizer_hidden_size", "tokenizer_dropout", "tokenizer_epochs", "tokenizer_batch_size"),
            *("tokenizer_learning_rate", "token_mask_ratio", "kl_weight", "barlow_twins_weight"),
            *("codebook_weight", "commitment_weight", "dead_code_threshold", "code_gradient"),
        ),
        _fits_a_tokenizer,
        "no network is trained to make tokens or codes",
    ),
    Dependent(
        ("token_size",),
        lambda config: config["tokenizer"] is not None or _fits_a_tokenizer(config),  # whole vectors have a size too
        "no network is trained to make codes",
    ),
    Dependent(
        ("barlow_twins_weight",),
        lambda config: max(config["item_tokens"], config["user_tokens"]) > 1,
        "one token has no other beside it",
    ),
    Dependent(
        ("item_vectors", "vector_size"),
        _reads_vectors,
        "nothing is made of item vectors: semantic ids come from elsewhere, and nothing starts at vectors",
    ),
    Dependent(
        ("category_template",),
        lambda config: config["text_bonus"] > 0,
        "text_bonus is 0, and no score asks which category an answer names",
    ),
    Dependent(("title_field",), _names("title"), "no template that is filled here holds {title}"),
    Dependent(("category_field",), _names("category"), "no template that is filled here holds {category}"),
    Dependent(
        ("text_fields",),
        lambda config: not config["text_fields"] or _reads_texts(config),
        "nothing that is trained or scored reads item texts; lists show them, and new items may be folded in by them",
    ),
    Dependent(
        ("token_sigma", "token_noise"), lambda config: config["tokenizer"] == "sigma", "of tokenizer=sigma alone"
    ),
    Dependent(
        ("user_token_dropout", "fold_in"),
        lambda config: bool(config["user_tokens"] or config["num_user_codebooks"]),
        "the prompt has no tokens of the user",
    ),
    Dependent(
        ("label_smoothing", "ranking_negatives", "ranking_negatives_alpha"),
        lambda config: config["ranking_weight"] is None or config["ranking_weight"] > 0,  # None: it smooths codes
        "of the ranking loss, and ranking_weight is 0",
    ),
    Dependent(
        ("ranking_negatives_alpha",),
        lambda config: config["ranking_negatives"] > 0,
        "ranking_negatives is 0, and nothing is drawn",
    ),
    Dependent(("temperature",), lambda config: config["similarity"] == "cosine", "of similarity=cosine alone"),
    Dependent(("pairwise_margin",), lambda config: config["pairwise_weight"] > 0, "pairwise_weight is 0"),
    Dependent(
        ("dispersive_loss", "dispersive_temperature"),
        lambda config: config["dispersive_weight"] > 0,
        "dispersive_weight is 0",
    ),
    Dependent(
        ("dispersive_temperature",),
        lambda config: config["dispersive_weight"] == 0 or config["dispersive_loss"].startswith("infonce"),
        "of the InfoNCE forms of dispersive_loss alone",
    ),
    Dependent(
        ("noisy_skip",),
        lambda config: config["objective"] == "denoising",
        "with objective=regression there is no noisy vector",
    ),
    Dependent(
        ("noisy_skip",),
        lambda config: config["objective"] == "regression" or config["prediction"] == "x0",
        "of prediction=x0 alone; noise and v always do so",
    ),
    Dependent(
        ("noise_draws", "condition_dropout"),
        _denoises,
        "nothing is denoised in training: regression_weight and dispersive_weight (and contrastive_weight) are 0",
    ),
    Dependent(
        ("condition_pooling",),
        lambda config: config["condition_on"] == "history",
        "with condition_on=answer preferences are generated from the answer",
    ),
    Dependent(("ddim_eta",), lambda config: config["sampling_steps"] > 1, "of more than one of sampling_steps"),
    Dependent(
        ("common_noise",),
        lambda config: config["sampling_steps"] > 1 or config["num_samples"] > 1,
        "one step and one sample draw no noise",
    ),
    Dependent(("sample_pooling",), lambda config: config["num_samples"] > 1, "num_samples is 1"),
    Dependent(
        (
            *("negatives_per_target", "negative_source", "negative_vector", "negative_noise"),
            *("contrastive_loss", "contrastive_scale", "contrastive_margin"),
        ),
        lambda config: config["contrastive_weight"] > 0,
        "contrastive_weight is 0",
    ),
    Dependent(
        ("contrastive_scale",),
        lambda config: config["contrastive_weight"] == 0 or config["contrastive_loss"] == "bpr",
        "of contrastive_loss=bpr alone",
    ),
    Dependent(
        ("contrastive_margin",),
        lambda config: config["contrastive_weight"] == 0 or config["contrastive_loss"] == "hinge",
        "of contrastive_loss=hinge alone",
    ),
    Dependent(
        ("alignment_items",),
        lambda config: not config["self_improve"] or config["alignment_weight"] > 0,
        "alignment_weight is 0",
    ),
    Dependent(
        (
            *("refine_every", "refine_from", "refine_whitening", "refine_candidates", "refine_groups"),
            *("refine_diversity", "refine_margin", "refine_crowding", "refine_assignment", "refine_tolerance"),
            "refinement",
        ),
        lambda config: not config["self_improve"] or config["refine_rounds"] > 0,
        "refine_rounds is 0",
    ),
    Dependent(("adam_beta2",), lambda config: "adam" in config["learner"], "of the Adam optimizers alone"),
)


def check_unread(config: Any) -> None:
    """Refuse or name what the user has set and nothing reads. Asked before training alone: checkpoints hold all
    settings as given ones.

    Raises:
        UserError: names the settings and what they need.
    """
    refuse_unread(config)
    for keys, why in _unread(config, NAMED):
        logger.warning("%s has no effect: %s", ", ".join(f"{key}={show(config[key])}" for key in keys), why)


def refuse_unread(config: Any, rules: Iterable[Dependent] = REFUSED) -> None:
    """The same for what is refused, by some of the rules.

    Raises:
        UserError: names the settings and what they need.
    """
    for keys, why in _unread(config, rules):
        raise UserError(f"{', '.join(keys)}: {why}")


def _unread(config: Any, rules: Iterable[Dependent]) -> list[tuple[list[str], str]]:
    """What the user has set otherwise than the model's YAML and nothing reads, and why."""
    found = []
    for rule in rules:
        own = [key for key in rule.keys if key in config.settings and config.is_given(key)]
        if (keys := changed(config, *own)) and not rule.is_read(config):
            found.append((keys, rule.why))
    return found
