"""
recbole_contrec.model.parts.settings
####################################
What the parts of a model are made by: RecBole's flat keys as small typed objects, one for each part that the lower
packages offer. Their fields are named like the arguments of the part:
``DiffusionHead(**vars(HeadSettings.from_config(config)))``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderSettings:
    """Of a compact :class:`~recbole_contrec.backbone.CausalDecoder` or
    :class:`~recbole_contrec.backbone.EncoderDecoder`."""

    hidden_size: int
    n_layers: int
    n_heads: int
    dropout: float
    intermediate_size: int

    @classmethod
    def from_config(cls, config: Any) -> "DecoderSettings":
        return cls(
            hidden_size=config["hidden_size"],
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            dropout=config["dropout"],
            intermediate_size=config["inner_size"],
        )


@dataclass(frozen=True)
class PretrainedSettings:
    """Of a :class:`~recbole_contrec.backbone.PretrainedModel`; ``name`` is None where the compact one is taken."""

    name: str | None
    dtype: str
    attention: str | None
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_targets: str | Sequence[str]
    gradient_checkpointing: bool
    quantisation: str | None
    random_seed: int | None  # of random weights, None for the trained ones
    layers: int | None
    lora_layers: int | None
    trained: bool

    @classmethod
    def from_config(cls, config: Any) -> "PretrainedSettings":
        return cls(
            name=config["llm"],
            dtype=config["llm_dtype"],
            attention=config["llm_attention"],
            lora_rank=config["lora_rank"],
            lora_alpha=config["lora_alpha"],
            lora_dropout=config["lora_dropout"],
            lora_targets=config["lora_targets"],
            gradient_checkpointing=config["gradient_checkpointing"],
            quantisation=config["quantisation"],
            random_seed=config["seed"] if config["random_weights"] in ("llm", "both") else None,
            layers=config["llm_layers"],
            lora_layers=config["lora_layers"],
            trained=config["train_llm"],
        )


@dataclass(frozen=True)
class HeadSettings:
    """Of a :class:`~recbole_contrec.diffusion.DiffusionHead`."""

    d: int
    width: int
    depth: int
    dropout: float
    schedule: str
    levels: int
    prediction: str
    noisy_skip: bool
    guidance: float
    condition_dropout: float
    noise_draws: int
    dispersive: str | None
    dispersive_temperature: float
    objective: str

    @classmethod
    def from_config(cls, config: Any) -> "HeadSettings":
        return cls(
            d=config["vector_size"],
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
        )


def noisy_skip(config: Any) -> bool:
    """Whether the head hands the noisy vector past its denoiser. The one-step mean ranks as well without."""
    if config["noisy_skip"] is None:
        return config["prediction"] != "x0" or config["sampling_steps"] > 1
    return config["noisy_skip"]


@dataclass(frozen=True)
class SamplingSettings:
    """How preferences are drawn from a :class:`~recbole_contrec.diffusion.DiffusionHead`."""

    steps: int
    samples: int
    guidance: float
    eta: float

    @classmethod
    def from_config(cls, config: Any) -> "SamplingSettings":
        return cls(
            steps=config["sampling_steps"],
            samples=config["num_samples"],
            guidance=float(config["guidance"]),
            eta=config["ddim_eta"],
        )


@dataclass(frozen=True)
class RetrievalSettings:
    """Of a :class:`~recbole_contrec.retrieval.Retrieval`, but for the rate of repeats, which the data have."""

    similarity: str
    temperature: float
    label_smoothing: float

    @classmethod
    def from_config(cls, config: Any) -> "RetrievalSettings":
        if config["label_smoothing"] and config["ranking_negatives"]:
            raise ValueError(
                f"label_smoothing={config['label_smoothing']} spreads over the whole catalogue: set "
                "ranking_negatives=0 as well"
            )
        return cls(config["similarity"], config["temperature"], config["label_smoothing"])


@dataclass(frozen=True)
class FitSettings:
    """How a tokenizer is fitted, see :func:`~recbole_contrec.tokenizer.fit_tokenizer`."""

    epochs: int | None
    batch_size: int
    learning_rate: float
    seed: int

    @classmethod
    def from_config(cls, config: Any) -> "FitSettings":
        return cls(
            epochs=config["tokenizer_epochs"],
            batch_size=config["tokenizer_batch_size"],
            learning_rate=config["tokenizer_learning_rate"],
            seed=config["seed"],
        )
