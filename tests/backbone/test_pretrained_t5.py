"""A pretrained T5 in the place of the compact one: its words, its one pass, its adapters, and what is refused. All are
small and have random weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec.backbone import PretrainedDecoder, PretrainedT5
from recbole_contrec.backbone.loading import load_pretrained
from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from tests.helpers.files import STORIES, write_t5
from tests.helpers.stories import Recommender

PREFIX = "the interaction history shows that the user preference could be".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5") / "t5")


def adapted(folder, seed=0, **settings):
    """With adapters that are not at their start any more, where they do nothing."""
    model = PretrainedT5(str(folder), **{"lora_rank": 4, **settings})
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def t5(folder):
    return adapted(folder)


def prompts(model):
    """Vectors [3, 7, D] and lengths [3]."""
    generator = torch.Generator().manual_seed(0)
    return model.word_size * torch.randn(3, 7, model.hidden_size, generator=generator), torch.tensor([4, 7, 1])


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_random_weights_come_in_the_formats_of_pretrained_ones(folder, dtype):
    """transformers keeps some matrices of a T5 in single precision, which overflow in half precision."""
    trained, drawn = (load_pretrained(str(folder), "t5", dtype, None, None, seed).model for seed in (None, 1))
    formats = [{name: parameter.dtype for name, parameter in model.named_parameters()} for model in (trained, drawn)]
    assert formats[1] == formats[0]
    assert len({*formats[0].values()}) == (2 if dtype == "float16" else 1)
    assert not drawn.training and drawn.config._attn_implementation == trained.config._attn_implementation
    whole = load_pretrained(str(folder), "t5", "float32", None, None, 1).model.state_dict()
    for name, weight in drawn.state_dict().items():
        assert torch.equal(weight, whole[name].to(weight.dtype)), name


# words and states


def test_states_are_those_of_transformers_behind_the_words_of_the_answer(folder):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    theirs, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    model = PretrainedT5(str(folder), lora_rank=0).eval()
    numbers = tokenizer(["what comes next", "somebody"], add_special_tokens=False)["input_ids"]
    answer = torch.tensor([0, *tokenizer.convert_tokens_to_ids(PREFIX)])
    assert model.decoder_query_tokens == len(answer) == 11 and model.hidden_size == 24
    inputs = torch.zeros(2, 5, 24)
    for row, words in enumerate(numbers):
        inputs[row, : len(words)] = model.read(torch.tensor(words))
    with torch.no_grad():
        states = model(inputs, torch.tensor([3, 1]))
        assert states.shape == (2, 11, 24) and states.dtype == torch.float32
        for row, words in enumerate(numbers):
            found = theirs(input_ids=torch.tensor([words]), decoder_input_ids=answer[None], output_hidden_states=True)
            close(states[row], found.decoder_hidden_states[-1][0])


def test_the_beginning_of_an_answer_is_a_setting(folder):
    model = PretrainedT5(str(folder), answer_prefix="two items")
    assert model.decoder_query_tokens == 3 and model(*prompts(model)).shape == (3, 3, 24)


@pytest.mark.parametrize(
    "kind, config",
    [("t5", {}), ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}), ("mt5", {}), ("umt5", {})],
)
def test_rows_are_read_as_if_they_were_alone(tmp_path, kind, config):
    model = adapted(write_t5(tmp_path / kind, kind, **config))
    inputs, length = prompts(model)
    with torch.no_grad():
        states = model(inputs, length)
        for row, own in enumerate(length):
            close(states[row : row + 1], model(inputs[row : row + 1, :own], length[row : row + 1]))
        garbage = inputs.clone()
        garbage[0, 4:], garbage[2, 1:] = 1e3, -1e3
        close(model(garbage, length), states)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inside_single_outside(folder, t5, dtype):
    half = adapted(folder, dtype=dtype)
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    assert half.read(torch.tensor([4])).dtype == torch.float32 and half._dtype == getattr(torch, dtype)
    states, expected = half(*prompts(t5)), t5(*prompts(t5))
    assert states.dtype == torch.float32 and 1e-6 < (states - expected).norm() / expected.norm() < 0.05
    states.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.requires_grad)


# training


def test_only_adapters_learn(t5):
    before = {key: parameter.detach().clone() for key, parameter in t5.named_parameters()}
    optimizer = torch.optim.SGD((p for p in t5.train().parameters() if p.requires_grad), lr=0.1)
    t5(*prompts(t5)).square().sum().backward()
    optimizer.step()
    changed = {key for key, parameter in t5.named_parameters() if not parameter.equal(before[key])}
    assert changed == {key for key in before if "lora_" in key}
    assert {key.split(".")[-4] for key in changed} == {"q", "k", "v", "o", "wi", "wo"}
    assert any(".encoder." in key for key in changed) and any(".EncDecAttention." in key for key in changed)
    assert t5.state_dict().keys() == changed | {"_extra_state"}


def test_all_weights_learn_but_an_output_layer_that_nothing_reads(tmp_path):
    model = PretrainedT5(str(write_t5(tmp_path / "t5", tie_word_embeddings=False)), lora_rank=0)
    output = model.model.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.detach().clone())  # newer transformers ties them all the same
    model._examine()
    model(*prompts(model)).square().sum().backward()
    without = {key for key, p in model.named_parameters() if p.grad is None}
    assert without == {"model.lm_head.weight"} and not output.weight.requires_grad
    assert model.model.get_input_embeddings().weight.requires_grad


def test_gradient_checkpointing_changes_no_gradient(folder):
    gradients = []
    for checkpointing in (False, True):
        model, kept = adapted(folder, gradient_checkpointing=checkpointing).train(), []
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
        ):
            states = model(*prompts(model))
        states.square().sum().backward()
        gradients.append(({key: p.grad for key, p in model.named_parameters() if p.requires_grad}, sum(kept)))
    (without, all_of_it), (recomputed, little) = gradients
    assert little < all_of_it / 2
    for key, gradient in without.items():
        close(recomputed[key], gradient, 1e-4)


# checkpoints


def test_adapters_go_through_a_checkpoint_without_the_base(folder, t5, tmp_path):
    inputs = prompts(t5)
    checkpoint.save(tmp_path / "x.safetensors", Recommender(t5).state_dict(), {})
    stored = checkpoint.load(tmp_path / "x.safetensors").tensors
    again = Recommender(adapted(folder, seed=1))
    assert not torch.allclose(again.backbone(*inputs), t5(*inputs), atol=1e-3)
    assert again.load_state_dict(stored).missing_keys == [] and again.backbone(*inputs).equal(t5(*inputs))


def test_peft_reads_the_adapters(folder, t5, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    t5.exports()["adapter"](tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(folder), tmp_path / "adapter").eval()
    assert type(theirs).__name__ == "PeftModelForSeq2SeqLM"
    inputs, length = prompts(t5)
    with torch.no_grad():
        found = theirs(inputs_embeds=inputs[1:2], decoder_input_ids=t5._answer[None], output_hidden_states=True)
        close(found.decoder_hidden_states[-1], t5(inputs[1:2], length[1:2]))


def test_adapters_of_another_model_are_refused(t5, tmp_path):
    other = write_t5(tmp_path / "other")
    adapted(other).load_state_dict(t5.state_dict())  # a copy is as good
    weights = load_file(other / "model.safetensors")
    weights["decoder.block.1.layer.0.SelfAttention.q.weight"] *= 1.1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match="those of .*other are others"):
        adapted(other).load_state_dict(t5.state_dict())


# what cannot be


def test_models_of_the_other_kind_are_refused(folder):
    with pytest.raises(UserError, match="is a llama model, not a T5: .*backbone=causal"):
        PretrainedT5(str(STORIES))
    with pytest.raises(UserError, match="is a t5 model, not a causal language model: .*backbone=t5"):
        PretrainedDecoder(str(folder))


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_a_model_without_a_tokenizer_is_refused(tmp_path, kind):
    with pytest.raises(UserError, match=r"its files \(tokenizer.json\) are missing"):
        PretrainedT5(str(write_t5(tmp_path / "x", kind, words=False, vocab_size=400)))


def test_files_that_lack_weights_are_refused(tmp_path):
    path = write_t5(tmp_path / "x")
    weights = load_file(path / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="its files lack 1 of its tensors, such as decoder.final_layer_norm.weight"):
        PretrainedT5(str(path))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"attention": "flash_attention_2", "dtype": "bfloat16"}, "transformers has no flash_attention_2 for it: "),
        ({"lora_targets": "q_proj"}, "no layer 'q_proj'"),
        ({"quantisation": "4bit", "lora_rank": 0}, "set lora_rank"),
        ({"layers": 1}, "llm_layers=1: for causal language models only"),
        ({"lora_layers": 1}, "lora_layers=1: for causal language models only"),
    ],
)
def test_settings_that_cannot_be(folder, settings, message):
    with pytest.raises((UserError, ValueError), match=message) as error:
        PretrainedT5(str(folder), **settings)
    assert str(error.value).count("\n") < 2
