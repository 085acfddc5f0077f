"""
benchmarks.lib.pretrained_variants
##################################
What :mod:`benchmarks.pretrained` compares. A variant is a model, its settings, and the row that it is measured
against: the same model without the texts, or the same architecture from random weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MODELS = ("text_encoder", "llm")  # what is given on the command line, and stands as {text_encoder} in settings


class Variant(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the row.
        meaning: in words.
        settings: beyond the model's own, without the dashes; ``{text_encoder}`` and ``{llm}`` stand for the pretrained
            models that are given, and a variant that names one not given is left out.
        control: name of the row that it is compared with; None for a row that others are compared with alone.
        model: as ``--model`` takes it.
    """

    name: str
    meaning: str
    settings: tuple[str, ...] = ()
    control: str | None = None
    model: str = "ContRec"

    def arguments(self, given: Mapping[str, str | None]) -> tuple[str, ...] | None:
        """Its settings as a command line has them, None where it names a model that is not given.

        Args:
            given: by the names of ``MODELS``; folders are made absolute, since runs have a folder of their own.
        """
        places = {name: _place(given[name]) for name in MODELS if given.get(name)}
        try:
            return tuple(f"--{setting.format_map(places)}" for setting in self.settings)
        except KeyError:
            return None


def _place(name: str | None) -> str:
    assert name is not None
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.exists() else name


NOT_SIMILAR = "text_similarity=0.0"
BESIDE = ("item_vectors=svd+text", "item_vectors_init=vectors")  # half of the columns from texts
READ = (*BESIDE, "text_encoder={text_encoder}")
KEPT = (*READ, NOT_SIMILAR, "text_whitening=1.0", "train_text_columns=False")
SIMILAR, SIMILAR_RANDOM = "text_similarity=4.0", "text_similarity=6.0"  # each chosen on validation
RANDOM = "random_weights=text_encoder"
OF_CONTROL = ("text_encoder={text_encoder}",)  # SASRecAll-svd keeps its start and reads texts for scores alone

TEXTS = (
    Variant("ContRec-svd", "no texts", ("item_vectors=svd", BESIDE[1], NOT_SIMILAR)),
    Variant("ContRec-tfidf", "item texts as TF-IDF, beside the interactions", (*BESIDE, NOT_SIMILAR), "ContRec-svd"),
    Variant(
        "ContRec-encoder-random",
        "item texts by the encoder, random weights",
        (*READ, NOT_SIMILAR, RANDOM),
        "ContRec-tfidf",
    ),
    Variant("ContRec-encoder", "item texts by the encoder", (*READ, NOT_SIMILAR), "ContRec-encoder-random"),
    Variant("ContRec-kept-random", "whitened and kept, random weights", (*KEPT, RANDOM), "ContRec-tfidf"),
    Variant("ContRec-kept", "whitened and kept: the other columns learn", KEPT, "ContRec-kept-random"),
    Variant("ContRec-similar-words", "similar words in the scores", (*BESIDE, SIMILAR), "ContRec-tfidf"),
    Variant(
        "ContRec-similar-random",
        "similar texts in the scores, random weights",
        (*READ, SIMILAR_RANDOM, RANDOM),
        "ContRec-tfidf",
    ),
    Variant("ContRec-similar", "similar texts in the scores", (*READ, SIMILAR), "ContRec-similar-random"),
    Variant("SASRecAll-svd", "control, no texts", model="SASRecAll-svd"),
    Variant(
        "SASRecAll-similar-words",
        "control, similar words in the scores",
        (SIMILAR,),
        "SASRecAll-svd",
        "SASRecAll-svd",
    ),
    Variant(
        "SASRecAll-similar-random",
        "control, similar texts in the scores, random weights",
        (*OF_CONTROL, SIMILAR_RANDOM, RANDOM),
        "SASRecAll-svd",
        "SASRecAll-svd",
    ),
    Variant(
        "SASRecAll-similar",
        "control, similar texts in the scores",
        (*OF_CONTROL, SIMILAR),
        "SASRecAll-similar-random",
        "SASRecAll-svd",
    ),
)

# A language model as the backbone, cut to few layers and trained for few epochs, which a CPU can bear.
SHORT = (NOT_SIMILAR, "MAX_ITEM_LIST_LENGTH=50", "train_batch_size=256", "epochs=3")
LLM = (*SHORT, "llm={llm}", "llm_layers=3", "learning_rate=1e-3")
LORA = (*LLM, "lora_rank=16", "lora_alpha=32", "llm_learning_rate=1e-3")
FULL = (*LLM, "lora_rank=0", "llm_learning_rate=2e-4")
NO_TRAINING = ("random_weights=llm",)

BACKBONES = (
    Variant("ContRec-short", "the compact decoder, in as many epochs", SHORT),
    Variant("ContRec-short-22", "the compact decoder, for as long", (*SHORT[:-1], "epochs=22"), "ContRec-short"),
    Variant("ContRec-lora-random", "adapters on random weights", (*LORA, *NO_TRAINING), "ContRec-short"),
    Variant("ContRec-lora", "adapters on pretrained weights", LORA, "ContRec-lora-random"),
    Variant("ContRec-full-random", "all weights trained, from random ones", (*FULL, *NO_TRAINING), "ContRec-short"),
    Variant("ContRec-full", "all weights trained, from pretrained ones", FULL, "ContRec-full-random"),
)

# The recipes of the papers on such a model. Words come on with the model, unless they are taken away: titles in the
# prompt, and an answer from which the preference is generated.
FEW = ("train_batch_size=256", "epochs=1")
CUT = ("llm={llm}", "llm_layers=3")
NO_ANSWERS = ("answer_weight=0.0", "condition_on=history", "text_bonus=0.0")
SILENT = (*NO_ANSWERS, "instructions=[]", "prompt_text=none")
BAG = (*NO_ANSWERS, "prompt_text=bag")  # no more positions than without words
CAUSAL = ("backbone=causal", "shuffle_history=False")
# What of the language model is trained, and how fast; the recipe trains all of it at 5e-5.
TRAINED = (
    ("fast", "all weights trained at 5e-4", ("llm_learning_rate=5e-4",)),
    ("lora", "adapters alone trained, at 5e-4", ("lora_rank=16", "lora_alpha=32", "llm_learning_rate=5e-4")),
    ("frozen", "the language model kept as it is", ("train_llm=False",)),
)


# Two epochs with an improvement of the semantic ids between them, and as many items to align for each target as in the
# recipe's own, larger batches.
IMPROVED = ("train_batch_size=256", "alignment_items=16", "epochs=2", "refine_every=1")


def _pair(
    name: str,
    meaning: str,
    settings: tuple[str, ...] = (),
    control: str | None = None,
    training: tuple[str, ...] = FEW,
) -> tuple[Variant, Variant]:
    """The recipe of a paper on a language model with random weights, beside the compact one or what is named, and with
    pretrained ones."""
    model, random = "-".join(name.split("-")[:2]), f"{name}-random"
    settings = (*training, *CUT, *settings)
    return (
        Variant(random, f"{meaning}, random weights", (*settings, *NO_TRAINING), control or f"{model}-short", model),
        Variant(name, f"{meaning}, pretrained weights", settings, random, model),
    )


def _compact(model: str, training: tuple[str, ...] = FEW) -> Variant:
    return Variant(f"{model}-short", "the recipe on the compact model, in as many epochs", training, model=model)


RECIPES = (
    _compact("ContRec-paper"),
    *_pair("ContRec-paper-silent", "the recipe without words", SILENT),
    *_pair("ContRec-paper-bag", "the recipe with the mean of the title's words at every item", BAG),
    *_pair("ContRec-paper-titles", "the recipe with titles in the prompt", NO_ANSWERS),
    *_pair("ContRec-paper-words", "the recipe with titles and answers"),
    _compact("DeftRec-paper"),
    *_pair("DeftRec-paper-silent", "the recipe without words", SILENT),
    _compact("TokenRec-paper"),
    *_pair("TokenRec-paper-causal", "the recipe on a causal model", CAUSAL),
    *(
        variant
        for name, meaning, settings in TRAINED
        for variant in _pair(
            f"TokenRec-paper-causal-{name}",
            f"the same, {meaning}",
            (*CAUSAL, *settings),
            "TokenRec-paper-causal-random",
        )
    ),
    _compact("SIIT-paper", IMPROVED),
    *_pair("SIIT-paper-words", "the recipe, self-improved once", training=IMPROVED),
)

VARIANTS: Sequence[Variant] = (*TEXTS, *BACKBONES, *RECIPES)
