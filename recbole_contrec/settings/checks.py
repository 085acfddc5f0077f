"""
recbole_contrec.settings.checks
###############################
What RecBole itself complains about, in a user's words, and models of it that cannot be trained here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from recbole.trainer import DecisionTreeTrainer, PretrainTrainer

from recbole_contrec.errors import UserError


@contextmanager
def recbole_checks() -> Iterator[None]:
    """A complaint of RecBole about settings, as a UserError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"RecBole: {error.args[0] if error.args else type(error).__name__}") from error


def refuse_untrainable(trainer: type) -> None:
    """Stop where a trainer class hands on pickled files.

    Raises:
        UserError: names the trainer and the reason.
    """
    if issubclass(trainer, (PretrainTrainer, DecisionTreeTrainer)):
        raise UserError(
            f"{trainer.__name__}: RecBole trains this model in several runs, or outside torch, and hands it on "
            "in pickled files; that is not supported here"
        )
