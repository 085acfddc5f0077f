"""The trained language model of the tests, a quarter of a million parameters large, changed in many ways. See
tests/files/stories260k/README.md."""

import json
import shutil

import torch
from torch import nn

from recbole_contrec.backbone import PretrainedDecoder
from tests.helpers.files import STORIES

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def adapted(name=STORIES, seed=0, **settings):
    """With adapters that are not at their start any more, where they do nothing."""
    torch.manual_seed(seed)
    decoder = PretrainedDecoder(str(name), **{"lora_rank": 4, **settings})
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if "lora_B" in key:
                nn.init.normal_(parameter, std=0.05)
    return decoder.eval()


def folder_of(path, without=(), tokenizer=None, **config):
    """The model in a folder of its own, with some files left out and some settings changed."""
    shutil.copytree(STORIES, path)
    for name in without:
        (path / name).unlink()
    for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer or {})):
        if (path / name).exists():
            settings = {**json.loads((path / name).read_text()), **changes}
            (path / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return path


def renumber(path, **numbers):
    """Give words other numbers."""
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"].update(numbers)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))


def random_model(path, kind, **config):
    """An untrained model of another architecture, with the same words."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder_of(path, without=["config.json", "model.safetensors", "generation_config.json"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            kind,
            **{
                "vocab_size": 512,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
                **config,
            },
        )
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return path


def close(actual, expected, tolerance=2e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def tree(prefixes, lengths):
    """Positions [B, S] and what is visible [B, S, S]: branches of some lengths behind prefixes of some lengths [B];
    between the prefix and its branches, and at the end of rows, stands padding that nothing sees."""
    places = max(prefixes) + sum(lengths)
    positions = torch.zeros(len(prefixes), places, dtype=torch.long)
    visible = torch.zeros(len(prefixes), places, places, dtype=torch.bool)
    for row, prefix in enumerate(prefixes):
        positions[row, :prefix] = torch.arange(prefix)
        visible[row, :prefix, :prefix] = torch.ones(prefix, prefix, dtype=torch.bool).tril()
        begin = max(prefixes)
        for length in lengths:
            own = slice(begin, begin + length)
            positions[row, own] = prefix + torch.arange(length)
            visible[row, own, :prefix] = True
            visible[row, own, own] = torch.ones(length, length, dtype=torch.bool).tril()
            begin += length
    return positions, visible


class Recommender(nn.Module):
    """A model around it: names get a prefix."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(64, 2)
