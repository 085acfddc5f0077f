"""
recbole_contrec.showing
#######################
Values as people write them.
"""

from typing import Any

NOTHING = "~"


def show(value: Any) -> str:
    """A value as one writes it on the command line or in YAML; the middle of a long one is left out."""
    text = NOTHING if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-20:]}"
