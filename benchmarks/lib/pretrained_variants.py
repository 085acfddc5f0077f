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


BESIDE = ("item_vectors=svd+text", "item_vectors_init=vectors")
READ = (*BESIDE, "text_encoder={text_encoder}")
KEPT = (*READ, "text_whitening=1.0", "train_text_columns=False")
RANDOM = ("random_weights=text_encoder",)

# Item texts as vectors: half of the columns from interactions, half from texts.
TEXTS = (
    Variant("ContRec-svd", "no texts: all columns from interactions", ("item_vectors=svd", BESIDE[1])),
    Variant("ContRec-tfidf", "TF-IDF of the item texts", BESIDE, "ContRec-svd"),
    Variant("ContRec-encoder-random", "the encoder with random weights", (*READ, *RANDOM), "ContRec-svd"),
    Variant("ContRec-encoder", "the encoder, as it is", READ, "ContRec-encoder-random"),
    Variant(
        "ContRec-kept-random",
        "the same with random weights",
        (*KEPT, *RANDOM),
        "ContRec-svd",
    ),
    Variant(
        "ContRec-kept",
        "the encoder, whitened; text columns stay, the others learn",
        KEPT,
        "ContRec-kept-random",
    ),
    Variant(
        "ContRec-kept-tfidf",
        "the same with TF-IDF",
        (*BESIDE, "text_whitening=1.0", "train_text_columns=False"),
        "ContRec-svd",
    ),
    Variant("SASRecAll-svd", "control without texts", model="SASRecAll-svd"),
    Variant("SASRecAll-encoder", "control with the encoder, as it is", READ, "SASRecAll-svd", "SASRecAll-svd"),
    Variant(
        "SASRecAll-kept-random",
        "control with the encoder's random weights, whitened and kept",
        (*KEPT, *RANDOM),
        "SASRecAll-svd",
        "SASRecAll-svd",
    ),
    Variant(
        "SASRecAll-kept",
        "control with the encoder, whitened and kept",
        KEPT,
        "SASRecAll-kept-random",
        "SASRecAll-svd",
    ),
)

# A language model as the backbone, cut to few layers and trained for few epochs, which a CPU can bear.
SHORT = ("MAX_ITEM_LIST_LENGTH=50", "train_batch_size=256", "epochs=3")
LLM = (*SHORT, "llm={llm}", "llm_layers=3", "learning_rate=1e-3")
LORA = (*LLM, "lora_rank=16", "lora_alpha=32", "llm_learning_rate=1e-3")
FULL = (*LLM, "lora_rank=0", "llm_learning_rate=2e-4")
NO_TRAINING = ("random_weights=llm",)

BACKBONES = (
    Variant("ContRec-short", "the compact decoder, in as many epochs", SHORT),
    Variant("ContRec-lora-random", "adapters on random weights", (*LORA, *NO_TRAINING), "ContRec-short"),
    Variant("ContRec-lora", "adapters on pretrained weights", LORA, "ContRec-lora-random"),
    Variant("ContRec-full-random", "all weights trained, from random ones", (*FULL, *NO_TRAINING), "ContRec-short"),
    Variant("ContRec-full", "all weights trained, from pretrained ones", FULL, "ContRec-full-random"),
)

VARIANTS: Sequence[Variant] = (*TEXTS, *BACKBONES)
