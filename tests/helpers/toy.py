"""A made-up model with its YAML and its data set, and configurations of them."""

from pathlib import Path

import pytest

from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config

FULL = {"valid": "full", "test": "full"}
MODEL_FILE = """
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.data.dataset import SequentialDataset


class {name}(SequentialRecommender):
    pass


class TextDataset(SequentialDataset):
    pass


class NoModel:
    pass
"""


BASE_YAML = """# A made-up model.
model_class: {module}:Toy
loss_type: CE           # (str; one of: CE, BPR) The loss.
width: 64               # (int; >= 1) Hidden width.
dropout: 0.2            # (float; 0..<1) Dropout rate.
samples: [1, 4]         # (int or list of int; >= 1) Samples to draw.
fields: ~               # (list of str or ~) Text columns.
plain: 3
free: ~
"""


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def atomic(name, header, item=None, root="dataset"):
    write(f"{root}/{name}/{name}.inter", "\t".join(header.split()) + "\n")
    if item:
        write(f"{root}/{name}/{name}.item", "\t".join(item.split()) + "\n")


def toy(*arguments, **options):
    return Config(options.pop("model", "Toy"), options.pop("dataset", "toy"), arguments=arguments, **options)


def error_of(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)
