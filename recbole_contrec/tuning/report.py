"""
recbole_contrec.tuning.report
#############################
What a search found: a table, pictures, and the best settings as a YAML file for ``properties/model``.
"""

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from recbole_contrec.files import write_whole
from recbole_contrec.report_page import Section, cell, page, picture
from recbole_contrec.report_page import table as html_table
from recbole_contrec.settings.registry import ON
from recbole_contrec.showing import show
from recbole_contrec.tuning.study import ASKED, ENDED, ERROR, NOT_OF_THE_MODEL, Search, tune, value_of

PICTURES: dict[
    str, tuple[Callable[..., Any], bool]
] = {  # title -> picture, and whether it takes the name of the metric
    "History": (optuna.visualization.plot_optimization_history, True),
    "Which settings matter": (optuna.visualization.plot_param_importances, False),
    "Each setting": (optuna.visualization.plot_slice, True),
    "Settings together": (optuna.visualization.plot_parallel_coordinate, True),
    "Validation curves": (optuna.visualization.plot_intermediate_values, False),
}


def search_and_report(search: Search, trials: int) -> optuna.Study:
    """Search, say and write what is found after each trial, and at the end what was best.

    Raises:
        UserError: as :func:`~recbole_contrec.tuning.study.tune`.
    """

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        write_reports(search, study)
        print(line_of(search, study, trial), flush=True)

    study = tune(search, trials, [tell])
    print("\nbest trials", *brief(search, study), sep="\n")
    for written in write_reports(search, study):
        print(f"written: {written}")
    return study


def table(search: Search, study: optuna.Study) -> pd.DataFrame:
    """One row a trial that has ended, the best first, then those that were stopped: settings, validation metrics,
    epochs, seconds."""
    ended = study.get_trials(states=ENDED)
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    ended.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, sign * (trial.value or 0), trial.number))
    return pd.DataFrame([_row(search, trial, study.user_attrs[ASKED]["valid_metric"]) for trial in ended])


def _row(search: Search, trial: FrozenTrial, metric: str) -> dict[str, Any]:
    complete = trial.state == TrialState.COMPLETE
    trained = (trial.user_attrs.get("seconds") or {}).get("training")
    seconds = trained or (trial.duration.total_seconds() if trial.duration else None)
    return {
        "trial": trial.number,
        "state": "complete" if complete else "failed" if ERROR in trial.user_attrs else "stopped early",
        f"valid {metric}": trial.value if complete else None,
        **value_of(trial, search.space),
        **{f"valid {name}": value for name, value in (trial.user_attrs.get("best_valid_result") or {}).items()},
        "best_epoch": trial.user_attrs.get("best_epoch"),
        "epochs trained": trial.user_attrs.get("epochs", len(trial.intermediate_values)),
        "seconds": None if seconds is None else round(seconds, 1),
    }


def brief(search: Search, study: optuna.Study, rows: int = 5) -> list[str]:
    """Lines of the best trials: number, validation score, settings."""
    found = table(search, study).iloc[:rows, : 3 + len(search.space)].drop(columns="state")
    return found.to_string(index=False, float_format="%.4g", na_rep="").splitlines()


def line_of(search: Search, study: optuna.Study, trial: FrozenTrial) -> str:
    """What became of a trial."""
    row = _row(search, trial, metric := study.user_attrs[ASKED]["valid_metric"])
    became = f"{metric} {trial.value:.4f}" if trial.state == TrialState.COMPLETE else row["state"]
    settings = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={show(value)}"
        for key, value in value_of(trial, search.space).items()
    )
    trained = row["epochs trained"]
    epochs = "1 epoch" if trained == 1 else f"{trained:g} epochs"
    return f"trial {trial.number}: {became}, {epochs}, {row['seconds']:.0f} s, {settings}"


def write_reports(search: Search, study: optuna.Study) -> list[Path]:
    """Write ``trials.csv``, ``report.html`` and ``MODEL_on_DATASET.yaml`` into the folder of a search.

    Returns:
        list: the files; nothing where no trial is complete.
    """
    if not study.get_trials(states=[TrialState.COMPLETE]):
        return []
    texts = {
        f"{search.model}{ON}{search.dataset}.yaml": best_yaml(search, study),
        "trials.csv": table(search, study).to_csv(index=False),
        "report.html": _page(search, study),
    }
    for name, text in texts.items():
        write_whole(search.folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return [search.folder / name for name in texts]


def best_yaml(search: Search, study: optuna.Study) -> str:
    """The settings of the best trial, those that the user gave for all of them included."""
    best, asked = study.best_trial, study.user_attrs[ASKED]
    given = {key: value for key, value in search.given().items() if key not in NOT_OF_THE_MODEL}
    ended = len(study.get_trials(states=ENDED))
    return (
        f"# {search.model} on {search.dataset}: the best of {ended} trials on validation, {asked['valid_metric']} "
        f"{best.value:.4f} (trial {best.number}).\n# Chosen with {_seeds(asked['seed'])}, which is not set here.\n"
        + yaml.safe_dump({**given, **value_of(best, search.space)}, sort_keys=False)
    )


def _seeds(seeds: int | list[int]) -> str:
    return f"the mean over seeds {', '.join(map(str, seeds))}" if isinstance(seeds, list) else f"seed {seeds}"


def _page(search: Search, study: optuna.Study) -> str:
    """One page that needs no network."""
    sections = []
    metric = {"target_name": f"validation {study.user_attrs[ASKED]['valid_metric']}"}
    for title, (plot, takes_metric) in PICTURES.items():
        try:
            with catch_warnings():
                simplefilter("ignore")  # of few trials
                figure = plot(study, **(metric if takes_metric else {}))
        except (ValueError, RuntimeError):  # too few trials
            continue
        sections.append(Section(title, picture(figure)))
    found = table(search, study)
    rows = [[cell(None if pd.isna(value) else value) for value in row] for row in found.itertuples(index=False)]
    sections.append(Section("Trials", html_table(list(found.columns), rows, tall=True)))
    return page(
        f"{search.model} on {search.dataset}: {len(study.trials)} trials",
        sections,
        f"<pre>{escape(best_yaml(search, study))}</pre>",
    )
