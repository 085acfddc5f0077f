"""
recbole_contrec.model.parts.contrec_checks
##########################################
Settings of ContRec and its heirs that contradict each other, would be ignored, or make poor draws.
"""

import logging
from bisect import bisect_left
from typing import Any

from recbole_contrec.diffusion import NoiseSchedule
from recbole_contrec.model.parts.learned_vectors import ItemVectorSettings, check_lazy
from recbole_contrec.model.parts.pretrained import changed, check_language_model
from recbole_contrec.model.parts.settings import RetrievalSettings

logger = logging.getLogger("recbole_contrec")

SMALL_SPREAD, ENOUGH = 0.1, 0.8


def check_settings(config: Any) -> None:
    """Stop where settings contradict each other.

    Raises:
        ValueError: says which.
    """
    check_language_model(config)
    ItemVectorSettings.from_config(config)
    RetrievalSettings.from_config(config)
    check_lazy(config)
    if config["prompt_text"] == "none" and (unread := changed(config, "item_template", "item_text_max_tokens")):
        raise ValueError(f"{', '.join(unread)}: the prompt says nothing of the items, set prompt_text as well")
    of_answers = ("answer_template", "answer_max_tokens", "answers_per_window", "answer_beams", "answer_temperature")
    if not config["answer_weight"] and (unread := changed(config, *of_answers)):
        raise ValueError(f"{', '.join(unread)}: nothing is answered, set answer_weight as well")
    _check_answered(config)
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
    if config["guidance"] and not config["condition_dropout"]:
        raise ValueError(
            f"guidance={config['guidance']:g} needs a head that was trained without the condition now and then: set "
            "condition_dropout as well"
        )
    if config["noisy_skip"] is False and config["prediction"] != "x0":
        raise ValueError(f"noisy_skip can be left out of prediction x0 alone, not of {config['prediction']}")
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


def _check_answered(config: Any) -> None:
    """Stop where answers are used and none are learned. A preset may ask for the use, and the user not want answers.

    Raises:
        ValueError: names all uses, and how to leave them away.
    """
    off = {"condition_on": "history", "text_weight": 0, "text_bonus": 0}
    used = [key for key in off if config[key] and config[key] != off[key]]
    if used and not config["answer_weight"]:
        named = ", ".join(f"{key}={config[key]}" for key in used)
        without = " ".join(f"--{key}={off[key]}" for key in used)
        raise ValueError(f"{named} need{'s' * (len(used) == 1)} answers: set --answer_weight=0.1, or {without}")


def warn_of_narrow_draws(config: Any) -> None:
    """Say so where the steps are too few for draws to differ as they should."""
    schedule = NoiseSchedule(config["noise_schedule"], config["noise_levels"])

    def share(steps: int) -> float:
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
