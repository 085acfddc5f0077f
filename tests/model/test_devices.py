"""Every model and preset on the device at hand, in half precision as well, and noise that is the same on all
devices."""

import pytest
import torch

from recbole_contrec import fold_in_interactions, fold_in_texts, load_data_and_model, recommend
from recbole_contrec.backbone.answers import _gumbel
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.settings.registry import is_overlay
from tests.helpers.files import STORIES
from tests.helpers.options import TINY, TINY_OF, TINY_TIGER, changed

DEVICE = ("--use_gpu=True", "--gpu_id=0") if torch.cuda.is_available() else ("--use_gpu=False",)
SPEAKING = (
    "--prompt_text=words",
    "--answer_weight=0.1",
    "--text_weight=0.3",
    "--text_bonus=0.2",
    "--vocabulary_size=300",
    "--condition_on=answer",
    "--instructions=['what comes next','and then']",
)
LLM = (f"--llm={STORIES}", "--lora_rank=2", "--user_tokens=0")
SAMPLED = ("--noise_levels=20", "--sampling_steps=5", "--num_samples=3", "--ddim_eta=1.0")
SIZES = {"TIGER-paper": TINY_TIGER, "TokenRec-paper": (*TINY_OF["TokenRec-paper"], "--codebook_size=8", "--n_heads=2")}
PRESETS = sorted(
    {path.stem for folder in properties_folders() for path in (folder / "model").glob("*.yaml") if not is_overlay(path)}
)
FORMS = [
    *((name, ()) for name in PRESETS),
    ("ContRec", SPEAKING),
    ("ContRec", LLM),
    ("DeftRec", SAMPLED),
    ("TokenRec", ("--backbone=t5",)),
    ("TIGER", ("--backbone=t5", "--user_buckets=5")),
    ("SIIT-states", ("--backbone=t5",)),
]


def each(forms):
    return [
        pytest.param(model, arguments, id=" ".join((model, *map(str, arguments)))[:60]) for model, arguments in forms
    ]


def sizes_of(model, *arguments):
    """Arguments of a small model of a preset on the device."""
    rounds = ("--epochs=2",) if model.startswith("SIIT") else ("--epochs=1",)  # it refines between two
    return changed(SIZES.get(model, TINY_OF.get(model, TINY)), (*rounds, *DEVICE, *arguments))


@pytest.mark.parametrize("model, arguments", each(FORMS))
def test_every_model_trains_and_ranks(run_tiny, model, arguments):
    result = run_tiny(model, *sizes_of(model, *arguments))
    assert result["epochs"] == 1 + model.startswith("SIIT") and result["test_result"]["recall@10"] >= 0
    if torch.cuda.is_available():
        assert result["card"]["device"] == torch.cuda.get_device_name(0)


@pytest.mark.parametrize(
    "model, arguments", each([("ContRec", LLM), ("DeftRec", ()), ("SIIT-states", ()), ("SASRecAll", ())])
)
def test_runs_go_on(run_tiny, model, arguments):
    sizes = sizes_of(model, *arguments, "--run_name=part")
    run_tiny(model, *sizes)
    assert run_tiny(model, *changed(sizes, ("--epochs=3",)), resume="saved/part")["epochs"] == 3


@pytest.mark.parametrize("model, arguments", each([("ContRec", SPEAKING), ("TokenRec", ())]))
def test_new_users_and_items_are_folded_in(run_tiny, model, arguments):
    loaded = load_data_and_model(run_tiny(model, *sizes_of(model, *arguments))["checkpoint"])
    assert loaded.model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    fold_in_interactions(loaded, {"new": ["u1", "u2", "u3"]})
    fold_in_texts(loaded, {"newer": "Title of odd kind"})
    lists = recommend(loaded, histories=[["i3", "new"], ["newer"]], k=5)
    assert len(lists) == 10


OF_ATTENTION = "--hidden_dropout_prob=0", "--attn_dropout_prob=0"
RECBOLE_DROPOUT = {"SASRec": OF_ATTENTION, "BERT4Rec": OF_ATTENTION, "GRU4Rec": ("--dropout_prob=0",)}


@pytest.mark.parametrize(
    "model, arguments", each([form for form in FORMS if "-paper" not in form[0] and form[0] != "Pop"])
)
def test_training_in_bf16(staged, model, arguments):
    """A few steps with autocast: finite, near to full precision, and nothing is left out or left in bf16."""
    terms, moved = {}, {}
    still = next((names for name, names in RECBOLE_DROPOUT.items() if name in model), ("--dropout=0",))
    for amp in (False, True):
        loaded = staged(model, *sizes_of(model, *arguments, f"--enable_amp={amp}", *still))
        torch.manual_seed(0)
        before = {name: p.detach().clone() for name, p in loaded.model.named_parameters() if p.requires_grad}
        terms[amp] = torch.tensor(loaded.trainer._train_epoch(loaded.data.train, 0))
        parameters = {name: p for name, p in loaded.model.named_parameters() if name in before}
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in parameters.values())
        moved[amp] = {name for name, p in parameters.items() if not torch.equal(before[name], p)}
        scores = loaded.model.eval().full_sort_predict(next(iter(loaded.data.test))[0].to(loaded.model.device))
        assert scores.dtype == torch.float32 and not scores.isnan().any()
    assert moved[True] == moved[False]
    torch.testing.assert_close(terms[True], terms[False], rtol=0.05, atol=0.02)


# noise


def test_preferences_are_sampled_with_noise_of_the_cpu(staged, monkeypatch):
    """With conditions on any device: a generator of that device would draw other numbers."""
    model, found = staged("ContRec", *SAMPLED).model.eval(), []
    monkeypatch.setattr(model.head, "sample", lambda *_, **options: found.append(options))
    model.preferences(torch.zeros(2, 16, device="meta"))
    generator = found[0]["generator"]
    assert generator.device.type == "cpu" and generator.initial_seed() == model.config["seed"]


def test_answers_are_drawn_with_noise_of_the_cpu():
    def generator():
        return torch.Generator().manual_seed(3)

    drawn = _gumbel(torch.zeros(2, 5), generator())
    uniform = torch.rand(5, generator=generator())
    torch.testing.assert_close(drawn, -(-uniform.log()).log())
    assert _gumbel(torch.zeros(2, 5, device="meta"), generator()).device.type == "meta"
