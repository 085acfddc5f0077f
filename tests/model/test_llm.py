"""ContRec and DeftRec on a pretrained language model, a small real one: words and tokens go in, adapters learn, scores
come back from a checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch

from recbole_contrec.backbone import PretrainedDecoder
from recbole_contrec.errors import UserError
from tests.helpers.files import STORIES
from tests.helpers.models import moved_by_training

LLM = (
    f"--llm={STORIES}",
    "--lora_rank=4",
    "--prompt_text=words",
    "--item_text_max_tokens=6",
    "--answer_weight=0.1",
    "--answer_max_tokens=10",
    "--instructions=['People who liked these films', 'After these films somebody liked']",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The result of a run of two epochs, and the folder of its data."""
    from recbole_contrec.quick_start import run
    from tests.helpers.files import write_atomic_files
    from tests.helpers.options import TINY_CONTREC

    folder = tmp_path_factory.mktemp("llm")
    write_atomic_files(folder / "data")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    yield (
        run(
            "ContRec",
            "tiny",
            arguments=[
                *TINY_CONTREC,
                *LLM,
                f"--data_path={folder / 'data'}",
                "--text_weight=0.1",
                "--text_bonus=0.1",
                "--n_layers=1",
            ],
        ),
        folder,
    )
    patch.undo()


def test_a_run_ends_with_scores_that_its_checkpoint_gives_again(trained):
    from recbole_contrec.quick_start import load_data_and_model

    result, _ = trained
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
    first, again = (load_data_and_model(result["checkpoint"]) for _ in range(2))
    rows = next(iter(first.data.test))[0]
    torch.testing.assert_close(first.model.full_sort_predict(rows), again.model.full_sort_predict(rows))
    torch.testing.assert_close(
        first.trainer.evaluate(first.data.test, load_best_model=False)["ndcg@10"], result["test_result"]["ndcg@10"]
    )
    said = first.model.answers(rows)
    assert said == again.model.answers(rows) and all(isinstance(text, str) for text in said)


def test_a_checkpoint_holds_what_was_trained_and_adapters_for_other_tools(trained):
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    result, _ = trained
    path = Path(result["checkpoint"])
    with safe_open(path, "pt") as file:
        theirs = [key for key in file.keys() if key.startswith("model.backbone.") and "lora" not in key]
    assert theirs == ["model.backbone._extra_state"]
    base = AutoModelForCausalLM.from_pretrained(STORIES)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(STORIES), path.parent / "adapter")
    words = torch.tensor([[1, 50, 60, 70]])
    assert not torch.allclose(base(words).logits, adapted(words).logits, atol=1e-4)


@pytest.mark.parametrize("model", ["ContRec", "DeftRec"])
def test_adapters_and_the_vectors_of_new_tokens_move_and_nothing_else_of_the_model(staged, model):
    loaded = staged(model, *LLM, "--train_item_tokens=True")
    moved = moved_by_training(loaded, 3)
    theirs = {name for name, _ in loaded.model.named_parameters() if name.startswith("backbone.")}
    assert {name for name in theirs if "lora_" in name} <= moved
    assert not any(name in moved for name in theirs if "lora_" not in name)
    assert {
        "items.table.weight",
        "item_vectors.weight",
        "items.adapter.weight",
        "prompt.instruction",
        "language.answers.begin",
    } <= moved


def test_a_language_model_learns_at_a_rate_of_its_own(staged):
    loaded = staged("ContRec", *LLM, "--learning_rate=1e-3", "--llm_learning_rate=1e-4")
    loaded.trainer.set_learning_rate(0.5)
    theirs = {id(p) for p in loaded.model.backbone.parameters()}
    rates = {
        own: {
            group["lr"]
            for group in loaded.trainer.optimizer.param_groups
            for p in group["params"]
            if (id(p) in theirs) == own
        }
        for own in (True, False)
    }
    (slow,), (fast,) = rates[True], rates[False]
    assert slow == pytest.approx(fast / 10)
    trained = sum(len(group["params"]) for group in loaded.trainer.optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in loaded.model.parameters())


def test_tokens_are_as_large_as_words(staged):
    model = staged("ContRec", *LLM).model.eval()
    layout = model.history.layout(torch.tensor([[3, 4, 5]]), torch.tensor([1]))
    sizes = layout.vectors.square().mean(-1).sqrt()[0]  # [S]
    tokens, word = sizes[layout.ends[0]], model.backbone.word_size
    assert (tokens > 0.4 * word).all() and (tokens < 2.5 * word).all()


def test_window_loss_equals_prefix_loss_on_a_pretrained_model(staged, config_of):
    """The loss over windows is the mean over RecBole's rows, words in the prompt included."""
    from recbole.data import create_dataset, data_preparation

    from tests.helpers.models import NoNoise
    from tests.helpers.options import STILL_CONTREC

    loaded = staged("ContRec", "--MAX_ITEM_LIST_LENGTH=24", "--train_batch_size=100000", *STILL_CONTREC, *LLM[:4])
    config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=24")
    rows = data_preparation(config, create_dataset(config))[0]
    model = loaded.model.train()
    with NoNoise(model), torch.no_grad():
        (windows,) = list(loaded.data.train)
        window_loss = model.calculate_loss(windows).ranking
        total = sum(model.calculate_loss(batch).ranking * len(batch) for batch in rows)
    assert window_loss.item() == pytest.approx(total.item() / loaded.data.train.n_targets, abs=1e-4)


def test_histories_make_room_where_a_model_reads_fewer_positions(staged):
    model = staged("ContRec", *LLM, "--max_prompt_length=60").model.eval()
    items = torch.arange(1, 11)[None]
    layout = model.history.layout(*model.history.fitting(items), torch.tensor([1]))
    assert layout.vectors.shape[1] + model.language.longest_answer <= 60


@pytest.mark.parametrize(
    "change, message",
    [
        (("--llm=nobody/nothing-of-this-name",), "nobody/nothing-of-this-name"),
        (("--llm=.",), "model"),
        ((f"--llm={STORIES}", "--lora_targets=nowhere"), "nowhere"),
        ((f"--llm={STORIES}", "--quantisation=4bit"), "bitsandbytes"),
        ((f"--llm={STORIES}", "--llm_dtype=float31"), "llm_dtype"),
    ],
)
def test_a_model_that_cannot_be_had_is_said_in_a_line(assembled, monkeypatch, change, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as raised:
        assembled("ContRec", *change)
    assert len(str(raised.value).splitlines()) <= 2


def test_a_checkpoint_on_other_weights_is_refused(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    from recbole_contrec.quick_start import load_data_and_model

    result, _ = trained
    other = tmp_path / "other"
    shutil.copytree(STORIES, other)
    weights = load_file(other / "model.safetensors")
    weights = {name: tensor + 0.01 for name, tensor in weights.items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not fit|other weights"):
        load_data_and_model(result["checkpoint"], arguments=[f"--llm={other}"])


@pytest.mark.parametrize("branches", [True, False])
def test_prompts_with_branches_stay_within_the_window_of_the_layers(branches):
    decoder = PretrainedDecoder(str(STORIES), lora_rank=0)
    decoder._window = 32
    assert decoder.longest_prompt(branches) == (32 if branches else 512)
    decoder._branches = False
    if branches:
        with pytest.raises(ValueError, match="cannot read branches"):
            decoder.longest_prompt(branches)
    else:
        assert decoder.longest_prompt(branches) == 512


def test_histories_make_room_for_answers_within_the_window(staged, monkeypatch):
    asked = []
    monkeypatch.setattr(PretrainedDecoder, "longest_prompt", lambda self, branches: asked.append(branches) or 70)
    model = staged("ContRec", *LLM).model
    assert asked == [True] and model.history.room == 70 - model.prompt.prefix_length - model.language.longest_answer


@pytest.mark.parametrize("dtype, rank, warned", [("bfloat16", 0, True), ("bfloat16", 2, False), ("float32", 0, False)])
def test_weights_trained_in_16_bits_are_warned_of(assembled, caplog, dtype, rank, warned):
    assembled("ContRec", f"--llm={STORIES}", f"--llm_dtype={dtype}", f"--lora_rank={rank}")
    assert ("in 16 bits small steps are rounded away" in caplog.text) == warned


def test_a_run_goes_on_where_its_model_has_moved(run_tiny, workplace):
    shutil.copytree(STORIES, workplace / "models")
    arguments = ("--lora_rank=2", "--user_tokens=0", "--run_name=moved")
    run_tiny("ContRec", "--llm=models", "--epochs=1", *arguments)
    (workplace / "models").rename(workplace / "elsewhere")
    result = run_tiny("ContRec", "--llm=elsewhere", "--epochs=2", *arguments, resume="saved/moved")
    assert result["epochs"] == 2


@pytest.mark.parametrize("model, own", [("ContRec", "--user_tokens=0"), ("TIGER", "--beam_size=2")])
def test_a_run_on_frozen_weights_trains_what_is_around_them_and_goes_on(run_tiny, workplace, model, own):
    from safetensors.torch import load_file

    frozen = (f"--llm={STORIES}", "--train_llm=False", own)
    whole = run_tiny(model, *frozen, "--epochs=2", "--run_name=whole")
    run_tiny(model, *frozen, "--epochs=1", "--run_name=again")
    again = run_tiny(model, *frozen, "--epochs=2", resume="saved/again")
    assert again["test_result"] == whole["test_result"]
    kept = load_file(again["checkpoint"])
    assert [key for key in kept if "backbone." in key] == ["model.backbone._extra_state"] and len(kept) > 1
    assert not (Path(again["checkpoint"]).parent / "adapter").exists()


FEWER = (
    "--llm_layers=3",
    "--lora_layers=2",
    "--lora_rank=2",
    "--random_weights=llm",
    "--prompt_text=words",
    "--answer_weight=0.1",
)


def test_a_run_on_some_layers_and_random_weights_goes_on_where_it_was(run_tiny, workplace):
    """The checkpoint names neither, and is right about both: random weights come back from the seed."""
    from safetensors.torch import load_file

    from recbole_contrec.quick_start import load_data_and_model

    whole = run_tiny("ContRec", f"--llm={STORIES}", "--epochs=2", "--run_name=whole", *FEWER)
    run_tiny("ContRec", f"--llm={STORIES}", "--epochs=1", "--run_name=again", *FEWER)
    again = run_tiny("ContRec", f"--llm={STORIES}", "--epochs=2", *FEWER, resume="saved/again")
    assert again["test_result"] == whole["test_result"]
    first, second = (load_file(Path(result["checkpoint"])) for result in (whole, again))
    assert all(first[key].equal(second[key]) for key in first)
    adapters = {key.split(".layers.")[1].split(".")[0] for key in first if "lora_" in key}
    assert adapters == {"1", "2"}
    loaded = load_data_and_model(whole["checkpoint"])
    rows = next(iter(loaded.data.test))[0]
    assert loaded.model.full_sort_predict(rows).isfinite().any() and loaded.model.answers(rows)


def test_a_run_finds_its_model_from_any_folder(run_tiny, workplace, monkeypatch):
    from recbole_contrec.cli import main

    shutil.copytree(STORIES, workplace / "models" / "small")
    result = run_tiny("ContRec", "--llm=models/small", "--lora_rank=2", "--epochs=1", "--user_tokens=0")
    elsewhere = workplace / "elsewhere"
    elsewhere.mkdir()
    checkpoint = Path(result["checkpoint"]).resolve()
    monkeypatch.chdir(elsewhere)
    assert main(["recommend", f"--checkpoint={checkpoint}", "--users=u1"]) == 0
    (workplace / "models").rename(workplace / "moved")
    assert main(["recommend", f"--checkpoint={checkpoint}", "--users=u1"]) == 2
    assert (
        main(["recommend", f"--checkpoint={checkpoint}", "--users=u1", f"--llm={workplace / 'moved' / 'small'}"]) == 0
    )


def test_a_language_model_without_a_name_is_refused(staged):
    with pytest.raises(UserError, match="llm= names no model"):
        staged("ContRec", "--llm=")
