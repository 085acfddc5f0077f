"""TokenRec on a pretrained language model, a small T5 or a small Llama: codes are new words beside its own, adapters
learn, scores come back from a checkpoint."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec.errors import UserError
from tests.helpers.files import STORIES, write_atomic_files, write_t5
from tests.helpers.models import moved_by_training
from tests.helpers.options import TINY_TOKENREC

WORDS = (
    "--instructions=['what comes next', 'which one of these items comes next']",
    "--held_out_instruction=somebody like one of two",
)  # words that no other instruction has


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5") / "t5")


@pytest.fixture(scope="module")
def t5(folder):
    """Arguments for it."""
    return ("--backbone=t5", f"--llm={folder}", "--lora_rank=4", "--item_positions=each", *WORDS)


LLAMA = (f"--llm={STORIES}", "--lora_rank=4", *WORDS)


@pytest.fixture
def ready(staged, t5):
    """A function (kind, *arguments) -> LoadedRun whose stages are done."""
    return lambda kind, *arguments: staged("TokenRec", *(t5 if kind == "t5" else LLAMA), *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, t5):
    """The result of a run with a T5."""
    from recbole_contrec.quick_start import run

    place = tmp_path_factory.mktemp("run")
    write_atomic_files(place / "data")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    yield run("TokenRec", "tiny", arguments=[*TINY_TOKENREC, *t5, f"--data_path={place / 'data'}"])
    patch.undo()


# what it reads


def inputs_of(module):
    """Vectors that a stack of transformers is given from now on."""
    given = []
    module.register_forward_pre_hook(lambda _, arguments, named: given.append(named["inputs_embeds"]), with_kwargs=True)
    return given


def test_words_reach_the_encoder_and_the_decoder(ready):
    loaded = ready("t5")
    model = loaded.model.eval()
    whole, rows = model.backbone.model.get_base_model(), next(iter(loaded.data.test))[0]
    encoded, decoded = inputs_of(whole.encoder), inputs_of(whole.decoder)
    model.full_sort_predict(rows)
    number = model.backbone.vocabulary.token_to_id
    told = model.backbone.read(torch.tensor([number(word) for word in "somebody like one of two".split()]))
    start = model.prompt.instructions.length - len(told)  # blanks are in front
    begun = model.backbone.read(torch.tensor([0, *map(number, "the interaction history shows that".split())]))
    for prompts, answers in zip(encoded, decoded, strict=True):
        assert torch.equal(prompts[:, start : start + len(told)], told.expand(len(prompts), -1, -1))
        assert torch.equal(prompts[:, :start], torch.zeros_like(prompts[:, :start]))  # a learned blank starts at zero
        assert torch.equal(answers[:, : len(begun)], begun.expand(len(prompts), -1, -1))
    drawn = model.train().prompt.instructions(50)
    assert len(drawn.flatten(1).unique(dim=0)) == 2
    assert not any(torch.equal(row, told) for row in drawn[:, -len(told) :])


@pytest.mark.parametrize("kind", ["t5", "causal"])
def test_codes_are_as_large_as_words(ready, kind):
    model = ready(kind).model.eval()
    layout = model.history.layout(torch.tensor([[3, 4, 5]]), torch.tensor([1]))
    sizes, word = layout.vectors.square().mean(-1).sqrt()[0], model.backbone.word_size  # [S]
    codes = sizes[model.prompt.instructions.length :]
    assert len(codes) == 3 + (9 if kind == "t5" else 3)
    assert (codes > 0.4 * word).all() and (codes < 3 * word).all()


@pytest.mark.parametrize("kind", ["t5", "causal"])
def test_scores_of_a_batch_are_those_of_its_rows(ready, kind):
    loaded = ready(kind)
    model, rows = loaded.model.eval(), next(iter(loaded.data.test))[0]
    together = model.full_sort_predict(rows)
    alone = torch.cat([model.full_sort_predict(rows[row : row + 1]) for row in range(8)])
    torch.testing.assert_close(together[:8], alone, rtol=1e-4, atol=1e-4)
    assert len(together.unique(dim=0)) == len(together)  # histories matter


def test_histories_make_room_where_a_model_reads_fewer_positions(ready):
    model = ready("causal", "--MAX_ITEM_LIST_LENGTH=200", "--item_positions=each").model.eval()
    items, length = torch.arange(200)[None] % 60 + 1, torch.tensor([200])
    fitting, left = model.history.fitting(items, length)
    assert int(left) == model.history.room // 3 < 200 and torch.equal(fitting[:, :left], items[:, -left:])
    layout = model.history.layout(fitting[:, :left], torch.tensor([1]))
    assert 512 - 3 < layout.vectors.shape[1] <= 512 == model.backbone.max_positions
    assert model.history.conditions(items, length, torch.tensor([1])).shape == (1, 64)
    assert ready("t5", "--MAX_ITEM_LIST_LENGTH=200").model.history.room is None


# training and checkpoints


@pytest.mark.parametrize("kind", ["t5", "causal"])
def test_adapters_and_new_vectors_move_and_nothing_else_of_the_model(ready, kind):
    loaded = ready(kind)
    model, optimiser = loaded.model, loaded.trainer.optimizer
    moved = moved_by_training(loaded, 2)
    theirs = {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    assert theirs & moved == {name for name in theirs if "lora_" in name}
    assert {
        "items.table.words.weight",
        "users.table.words.weight",
        "item_vectors.weight",
        "item_vectors.adapter.weight",
        "projection.weight",
        "prompt.instructions.blank",
    } <= moved
    given = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_language_model_learns_at_a_rate_of_its_own(ready):
    loaded = ready("t5", "--learning_rate=1e-3", "--llm_learning_rate=1e-4")
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


def test_a_run_ends_with_scores_that_its_checkpoint_gives_again(trained):
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForSeq2SeqLM

    from recbole_contrec import load_data_and_model, recommend

    path = Path(trained["checkpoint"])
    first, again = (load_data_and_model(path) for _ in range(2))
    rows = next(iter(first.data.test))[0]
    torch.testing.assert_close(first.model.full_sort_predict(rows), again.model.full_sort_predict(rows))
    assert (
        first.trainer.evaluate(first.data.test, load_best_model=False)["ndcg@10"] == trained["test_result"]["ndcg@10"]
    )
    with safe_open(path, "pt") as file:
        kept = {key for key in file.keys() if key.startswith("model.backbone.") and "lora_" not in key}
    assert kept == {"model.backbone._extra_state"}
    name = first.config["llm"]
    theirs = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(name), path.parent / "adapter")
    ours = {key.removeprefix("model."): p for key, p in first.model.backbone.named_parameters() if "lora_" in key}
    assert all(torch.equal(p, ours[key]) for key, p in theirs.named_parameters() if "lora_" in key)
    table = recommend(first, users=["u3"], histories=[["i1", "i2"]], k=4)
    assert len(table) == 8 and table["item_id"].notna().all()


def test_a_checkpoint_on_other_weights_is_refused(trained, tmp_path):
    from recbole_contrec import load_data_and_model

    other = write_t5(tmp_path / "other")
    load_data_and_model(trained["checkpoint"], arguments=[f"--llm={other}"])  # a copy is as good
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="does not fit .* others"):
        load_data_and_model(trained["checkpoint"], arguments=[f"--llm={other}"])


def test_all_weights_train_without_adapters(ready):
    loaded = ready("t5", "--lora_rank=0")
    state = loaded.model.state_dict()
    assert "backbone.model.shared.weight" in state and loaded.model.backbone.exports() == {}
    sum(loaded.model.train().calculate_loss(next(iter(loaded.data.train)))).backward()
    assert all(p.grad is not None for p in loaded.model.backbone.parameters())


def test_a_causal_model_takes_the_place_of_the_t5_in_the_recipe_of_the_paper(run_tiny, caplog):
    """One word of the user is enough: what shuffles the histories of a T5 goes with it, and the log says so."""
    from recbole_contrec.quick_start import load_data_and_model

    llama = (f"--llm={STORIES}", "--instructions=['what comes next']", "--held_out_instruction=~", "--epochs=1")
    llama += ("--lightgcn_epochs=2",)
    with pytest.raises(UserError, match="is a llama model, not a T5.*backbone=causal takes a causal"):
        run_tiny("TokenRec-paper", *llama)
    result = run_tiny("TokenRec-paper", "--backbone=causal", *llama)
    assert result["settings"]["shuffle_history"] is False and load_data_and_model(result["checkpoint"])
    assert "shuffle_history=False, not True as in TokenRec-paper: " in caplog.text
    assert "history: 10 items (recipe: 50 items, shuffled)" in " ".join(caplog.text.split())
    with pytest.raises(UserError, match="shuffle_history needs backbone=t5"):
        run_tiny("TokenRec-paper", "--backbone=causal", "--shuffle_history=True", *llama)


def test_the_recipe_of_the_paper_runs_on_it(run_tiny, folder):
    result = run_tiny(
        "TokenRec-paper",
        "--epochs=1",
        "--lightgcn_epochs=2",
        f"--llm={folder}",
        "--lora_rank=0",
        "--llm_learning_rate=5e-5",
        "--instructions=['what comes next']",
        "--held_out_instruction=~",
    )
    assert 0 <= result["test_result"]["ndcg@10"] <= 1 and not (Path(result["checkpoint"]).parent / "adapter").exists()


# what cannot be


@pytest.mark.parametrize(
    "change, message",
    [
        (("--llm=T5",), "is a t5 model, not a causal language model.*backbone=t5"),
        (("--backbone=t5", f"--llm={STORIES}"), "is a llama model, not a T5.*backbone=causal"),
        (
            ("--backbone=t5", "--llm=nobody/nothing-of-this-name"),
            "nobody/nothing-of-this-name: .*it is not in .*, and HF_HUB_OFFLINE is set",
        ),
        (("--backbone=t5", "--llm=T5", "--lora_targets=nowhere"), "no layer 'nowhere'"),
        (("--backbone=t5", "--llm=T5", "--decoder_query_tokens=8"), "decoder_query_tokens is of the compact T5"),
        ((f"--llm={STORIES}", "--answer_prefix=a preference"), "answer_prefix needs backbone=t5"),
        (("--backbone=t5", "--answer_prefix=a preference"), "answer_prefix needs backbone=t5 and llm"),
        (("--lora_rank=4", "--llm_dtype=bfloat16"), "llm_dtype, lora_rank: for a pretrained language model only"),
        (("--quantisation=4bit",), "quantisation: for a pretrained"),
        (("--gradient_checkpointing=True",), "gradient_checkpointing: for a pretrained"),
        (("--shard_backbone=True",), "shard_backbone: for a pretrained"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(assembled, monkeypatch, folder, change, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as raised:
        assembled("TokenRec", *(argument.replace("llm=T5", f"llm={folder}") for argument in change))
    assert len(str(raised.value).splitlines()) <= 2


def test_tokenizers_do_not_depend_on_adapters(assembled, folder):
    """What a language model draws for its adapters leaves the start of the tokenizers as it is."""
    plain = assembled("TokenRec").model.items.quantiser.state_dict()
    for rank in (2, 4):
        other = assembled("TokenRec", "--backbone=t5", f"--llm={folder}", f"--lora_rank={rank}").model.items.quantiser
        assert all(torch.equal(tensor, plain[name]) for name, tensor in other.state_dict().items())
