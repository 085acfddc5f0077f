"""A pretrained language model in a checkpoint: with its adapters alone, with all its weights, or with random ones."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec.backbone import PretrainedDecoder
from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from tests.helpers.files import STORIES
from tests.helpers.stories import STORY, Recommender, adapted, close, folder_of, renumber


def test_checkpoints_know_how_many_layers_they_were_trained_on(tmp_path):
    cut, inputs = adapted(layers=3, lora_layers=2), torch.randn(2, 7, 64)
    checkpoint.save(tmp_path / "x.safetensors", cut.state_dict(), {})
    state = checkpoint.load(tmp_path / "x.safetensors").tensors
    again = adapted(seed=1, layers=3, lora_layers=2)
    again.load_state_dict(state)
    assert again(inputs).equal(cut(inputs))
    with pytest.raises(RuntimeError, match="trained on 3 layers of .*, not on all layers: see llm_layers"):
        adapted().load_state_dict(state)
    with pytest.raises(RuntimeError, match="trained on all layers of .*, not on 3 layers"):
        cut.load_state_dict(adapted().state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        adapted(layers=3).load_state_dict(state)


def test_adapters_go_through_a_checkpoint_without_the_base(tmp_path):
    model, inputs = Recommender(adapted()), torch.randn(2, 7, 64)
    checkpoint.save(tmp_path / "x.safetensors", model.state_dict(), {})
    stored = checkpoint.load(tmp_path / "x.safetensors").tensors
    assert all("lora_" in key or key.endswith("_extra_state") or key.startswith("head.") for key in stored)
    again = Recommender(adapted(seed=1))
    assert not torch.allclose(again.backbone(inputs), model.backbone(inputs), atol=1e-2)
    model.backbone.requires_grad_(False)  # what is saved does not depend on it
    assert model.state_dict().keys() == stored.keys() and again.load_state_dict(stored).missing_keys == []
    assert again.backbone(inputs).equal(model.backbone(inputs))
    del stored[next(key for key in stored if "lora_A" in key)]
    with pytest.raises(RuntimeError, match="Missing key.*lora_A"):
        again.load_state_dict(stored)
    with pytest.raises(RuntimeError, match="Missing key.*head.bias"):
        again.load_state_dict({key: tensor for key, tensor in stored.items() if key != "head.bias"})


def test_all_weights_go_through_a_checkpoint_once(tmp_path):
    decoder, inputs = PretrainedDecoder(str(STORIES), lora_rank=0).eval(), torch.randn(2, 7, 64)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1.1)
    state = decoder.state_dict()
    assert "model.model.embed_tokens.weight" in state and "model.lm_head.weight" not in state  # they are one
    again = PretrainedDecoder(str(STORIES), lora_rank=0).eval()
    again.load_state_dict(state)
    assert again.word_logits(again(inputs)).equal(decoder.word_logits(decoder(inputs)))
    with pytest.raises(RuntimeError, match="lora_rank=0, not lora_alpha=16.0"):
        adapted().load_state_dict(state)
    with pytest.raises(RuntimeError, match="lora_alpha=16.0, not lora_rank=0"):
        decoder.load_state_dict(adapted().state_dict())


def test_all_weights_are_refused_where_training_did_not_begin_there(tmp_path):
    """Codes and tokens are read as large as the words were before training, which no weight of the checkpoint tells."""
    trained = PretrainedDecoder(str(STORIES), lora_rank=0)
    before = trained.word_size
    with torch.no_grad():
        trained.get_parameter("model.model.embed_tokens.weight").mul_(1.5)
    state = trained.state_dict()
    assert trained.word_size == before
    elsewhere = folder_of(tmp_path / "copy")
    for same in ({}, {"dtype": "bfloat16"}):
        PretrainedDecoder(str(elsewhere), lora_rank=0, **same).load_state_dict(state)
    weights = load_file(elsewhere / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1.1
    save_file(weights, elsewhere / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"began at the weights of .*stories260k; those of .*copy are others"):
        PretrainedDecoder(str(elsewhere), lora_rank=0).load_state_dict(state)


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_random_weights_come_in_the_format_of_pretrained_ones_and_positions_stay_exact(dtype, tmp_path):
    folder = shutil.copytree(STORIES, tmp_path / "half")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    models = [PretrainedDecoder(str(folder), lora_rank=0, dtype=dtype, random_seed=seed) for seed in (None, 1)]
    trained, drawn = (dict(model.named_buffers()) for model in models)
    assert drawn.keys() == trained.keys() and any("inv_freq" in name for name in drawn)
    assert all(torch.equal(drawn[name], trained[name]) for name in drawn)
    for model in models:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_random_weights_keep_architecture_and_words_and_come_back_from_their_seed(stories):
    torch.manual_seed(5)
    first = PretrainedDecoder(str(STORIES), lora_rank=0, random_seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # nothing else that is drawn depends on them
    again, other = (PretrainedDecoder(str(STORIES), lora_rank=0, random_seed=seed) for seed in (1, 2))
    weights = [dict(model.named_parameters()) for model in (stories, first, again, other)]
    assert all(weights[0].keys() == each.keys() for each in weights)
    matrices = [key for key, weight in weights[0].items() if weight.dim() == 2]
    assert matrices and all(torch.equal(weights[1][key], weights[2][key]) for key in matrices)
    for ours in (weights[0], weights[3]):
        assert not any(torch.equal(weights[1][key], ours[key]) for key in matrices)
    assert first.vocabulary.encode(STORY).ids == stories.vocabulary.encode(STORY).ids
    assert PretrainedDecoder(str(STORIES), dtype="bfloat16", random_seed=1).read(torch.tensor([3])).isfinite().all()


def test_adapters_of_trained_weights_are_refused_on_random_ones():
    state = adapted().state_dict()
    with pytest.raises(RuntimeError, match="those of .* are others"):
        adapted(random_seed=1).load_state_dict(state)


def test_adapters_of_another_model_are_refused(tmp_path):
    state = adapted().state_dict()
    elsewhere = folder_of(tmp_path / "copy")
    for same in (adapted(elsewhere), adapted(dtype="bfloat16"), adapted(dtype="float16")):
        same.load_state_dict(state)
    weights = load_file(elsewhere / "model.safetensors")
    weights["model.layers.3.mlp.up_proj.weight"] *= 1.02
    save_file(weights, elsewhere / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        RuntimeError, match=r"trained on top of the weights of .*stories260k; those of .*copy are others"
    ):
        adapted(elsewhere).load_state_dict(state)
    with pytest.raises(RuntimeError, match="lora_alpha=16.0, not lora_alpha=8.0"):
        adapted(lora_alpha=8.0).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        adapted(lora_rank=2).load_state_dict(state)
    renumber(elsewhere, **{"▁the": 366, "▁they": 265})  # the other way round
    with pytest.raises(RuntimeError, match="other words"):
        adapted(elsewhere).load_state_dict(state)


def test_a_run_keeps_adapters_for_us_and_for_peft(assembled):
    """What the trainer writes beside the best model is read by peft, and its checkpoint by a new run."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from recbole_contrec.training.identity import load_weights

    loaded, again = assembled("ContRec", "--hidden_size=64"), assembled("ContRec", "--hidden_size=64")
    loaded.model.backbone, again.model.backbone = adapted(), adapted(seed=1)
    trainer, inputs = loaded.trainer, torch.randn(2, 7, 64)
    for epoch in (0, 1):  # the second one takes the place of the first
        trainer._save_checkpoint(epoch, verbose=False)
    # the first one is kept until the state of the epoch is saved as well
    assert sorted(path.name for path in trainer.folder.iterdir()) == [
        "adapter",
        "best.before.safetensors",
        "best.safetensors",
    ]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(STORIES), trainer.folder / "adapter").eval()
    expected = loaded.model.backbone(inputs)
    close(theirs.base_model.model.model(inputs_embeds=inputs).last_hidden_state, expected)
    path = trainer.folder / "best.safetensors"
    load_weights(again.model, path, "ContRec", trainer.identity)
    assert again.model.backbone(inputs).equal(expected)
    again.model.backbone = adapted(lora_alpha=1.0)
    with pytest.raises(UserError, match=r"best.safetensors does not fit .* lora_alpha=16.0, not lora_alpha=1.0"):
        load_weights(again.model, path, "ContRec", trainer.identity)
    assert PretrainedDecoder(str(STORIES), lora_rank=0).exports() == {}
