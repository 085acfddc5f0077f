"""Small diffusion heads."""

from recbole_contrec.diffusion import (
    DiffusionHead,
)


def make_head(**settings):
    return DiffusionHead(**{"d": 5, "condition_size": 7, "width": 16, "levels": 50, **settings})
