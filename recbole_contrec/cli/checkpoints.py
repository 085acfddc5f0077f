"""
recbole_contrec.cli.checkpoints
###############################
What commands that use a trained model have in common: its checkpoint, and where its files lie now.
"""

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from recbole_contrec.cli.messages import show_messages
from recbole_contrec.cli.options import Command

if TYPE_CHECKING:
    from recbole_contrec.loaded_run import LoadedRun  # slow

_MAY_CHANGE = ("data_path", "llm", "text_encoder")  # settings that may be otherwise than in training


def checkpoint_option(command: Command) -> None:
    """The option that names a trained model."""
    command.value("checkpoint", "PATH", "the folder of a run, or a checkpoint in it")


def place_options(command: Command) -> None:
    """The options for files that lie elsewhere than in training."""
    command.value("data_path", "DIR", "where the data sets lie now")
    command.value("properties", "DIR", "where your own YAML files lie now")
    command.value("llm", "DIR", "where the pretrained language model lies now")
    command.value("text_encoder", "DIR", "where the text encoder lies now")


def load(options: argparse.Namespace) -> "LoadedRun":
    """The trained model that the options name, with its data. Messages go to the standard error, warnings alone: the
    output is that of the command.

    Raises:
        UserError: whatever the user can mend.
    """
    from recbole_contrec.compat import require_recbole

    require_recbole()
    from recbole_contrec.reloading import load_data_and_model

    show_messages(sys.stderr)
    logging.getLogger("recbole_contrec").setLevel(logging.WARNING)
    changes = {key: value for key in _MAY_CHANGE if (value := getattr(options, key)) is not None}
    return load_data_and_model(options.checkpoint, changes, options.properties)
