"""
recbole_contrec.cli.tune
########################
``tune``: settings chosen on validation, by Optuna.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from recbole_contrec.cli.options import Command, paths, whole_number
from recbole_contrec.errors import UserError, did_you_mean

DESCRIPTION = """\
Choose settings on validation with Optuna: each trial trains with settings drawn from a space, the first one with the
defaults. Test data are not looked at. The same command goes on with a search that was stopped; started several times at
once, it shares the trials. Everything is written to --output: trials.csv, report.html, and the best settings as
MODEL_on_DATASET.yaml, which a folder properties/model makes the defaults of that data set."""

EPILOG = """\
A space is a YAML file: lists of values, or ranges; ends are included.
  learning_rate: {low: 0.0001, high: 0.01, log: True}
  attn_dropout_prob: {low: 0.1, high: 0.5, step: 0.1}
  train_batch_size: [128, 256, 512]
Files of RecBole's run_hyper.py (learning_rate loguniform -8,0) are read as well.
Every setting of RecBole and of the model can be given as --key=value; it is the same in all trials.

Examples:
  python run_recbole_contrec.py tune --model=ContRec --dataset=ml-100k --trials=30
  python run_recbole_contrec.py tune --model=SASRec --dataset=ml-100k --space=mine.yaml --epochs=10 --output=found
  python run_recbole_contrec.py --model=SASRec --dataset=ml-100k --config_files=found/SASRec_on_ml-100k.yaml"""


def parser() -> Command:
    """The options of ``tune``."""
    command = Command("tune", DESCRIPTION, EPILOG)
    command.value("model", "NAME", "as in training")
    command.value("dataset", "NAME", "as in training")
    command.value("space", "FILE", "what varies (default: space/MODEL.yaml of a properties folder)")
    command.value(
        "trials", "N", "trials in all, those of earlier calls included (default: 20)", whole_number("trials"), 20
    )
    command.value("output", "DIR", "where everything goes (default: tuned/MODEL_on_DATASET)")
    command.value("storage", "URL", "where trials are kept (default: SQLite in --output), sqlite:///FILE or a server")
    command.value("study", "NAME", "of the search in its storage (default: MODEL_on_DATASET)")
    command.flag("no-pruning", "never stop a trial early")
    command.value("config_files", "A,B", "YAML files of settings; later ones win", paths, [])
    command.value("properties", "DIR", "a folder with model/*.yaml, dataset/*.yaml and space/*.yaml of your own")
    command.usual()
    return command


def tune(arguments: Sequence[str]) -> int:
    """Search, and write what was found.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options, settings = command.read(arguments)
    if options.model is None or options.dataset is None:
        raise UserError("name both --model=NAME and --dataset=NAME")
    for name in ("space", "output", "storage", "study"):
        if getattr(options, name) == "":
            raise UserError(f"--{name}= has no value: leave it away for the default")
    from recbole_contrec.compat import require_recbole
    from recbole_contrec.packages import require

    require_recbole()
    require("optuna", "tune")
    _search(options, settings, command)
    return 0


def _search(options: argparse.Namespace, settings: list[str], command: Command) -> None:
    from recbole_contrec.catalogue.places import properties_folders  # slow, as the others
    from recbole_contrec.quick_start import fetch_missing_data
    from recbole_contrec.settings.registry import ON
    from recbole_contrec.tuning.report import search_and_report
    from recbole_contrec.tuning.space import find_space, read_space
    from recbole_contrec.tuning.study import Search

    folders = properties_folders(options.properties)
    _check_names(options.model, settings, folders, command)
    path = options.space or find_space(options.model, folders)
    if path is None:
        raise UserError(f"there is no space for {options.model}: write one, --space=FILE; tune --help shows how")
    given = dict(config_file_list=options.config_files, arguments=settings, properties=options.properties)
    fetch_missing_data(options.model, options.dataset, **given)
    name = f"{options.model}{ON}{options.dataset}"
    search = Search(
        options.model,
        options.dataset,
        read_space(path),
        Path(options.output or f"tuned/{name}"),
        options.study or name,
        options.storage,
        not options.no_pruning,
        **given,
    )

    search_and_report(search, options.trials)


def _check_names(model: str, settings: list[str], folders: list[Path], command: Command) -> None:
    """A misspelt option looks like a setting: the nearest option is named.

    Raises:
        UserError: for such a name, or a model that does not exist.
    """
    from recbole_contrec.settings.registry import find_model, general_settings
    from recbole_contrec.settings.schema import parse_arguments

    known = {**general_settings(folders)[0], **find_model(model, folders).settings}
    for key in parse_arguments(settings):
        if key not in known and (near := did_you_mean(key, [option[2:] for option in command.names()])):
            raise UserError(f"unknown option --{key}{near}")
