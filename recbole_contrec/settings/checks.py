"""
recbole_contrec.settings.checks
###############################
What RecBole itself complains about, in a user's words.
"""

from contextlib import contextmanager
from typing import Iterator

from recbole_contrec.errors import UserError


@contextmanager
def recbole_checks() -> Iterator[None]:
    """A complaint of RecBole about settings, as a UserError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"RecBole: {error.args[0] if error.args else type(error).__name__}") from error
