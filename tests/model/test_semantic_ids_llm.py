"""Models that generate semantic ids on a pretrained language model, a small real one: codes are new words as large as
its own, beams are exact, adapters and codes learn, and a run goes on where it was killed."""

import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.trainer import RunTrainer
from tests.helpers.files import STORIES
from tests.helpers.models import exact_scores, moved_by_training
from tests.helpers.options import STILL_OF

LLM = (f"--llm={STORIES}", "--lora_rank=4")
SPOKEN = ("--instructions=['Somebody liked these films', 'After these films']", "--held_out_instruction=~")
WORDS = ("--self_improve=True", "--item_descriptions=words", "--alignment_items=8", "--refine_from=descriptions")
ROUND = ("--refine_every=1", "--refine_rounds=1", "--refine_candidates=4", "--refine_groups=2", "--epochs=2")
MODELS = ["TIGER", "TokenRec-beam"]


@pytest.fixture
def speaking(staged):
    """A function (model, *arguments) -> LoadedRun on the language model, its stages done."""
    return lambda model, *arguments: staged(model, *LLM, *arguments)


@pytest.mark.parametrize("model", MODELS)
def test_codes_are_as_large_as_words_wherever_they_are_read(speaking, model):
    model = speaking(model, *SPOKEN).model.eval()
    word = model.backbone.word_size
    layout = model.history.layout(torch.tensor([[3, 4, 5]]), torch.tensor([1]))
    sizes = layout.vectors.square().mean(-1).sqrt()[0, model.prompt.prefix_length :]
    assert (sizes > 0.3 * word).all() and (sizes < 3 * word).all()
    written = model.decoder.read(model.decoder.item_codes.codes[4])  # of a beam, as in a history
    first = model.prompt.prefix_length + 3
    torch.testing.assert_close(written[0], layout.vectors[0, first])
    assert model.prompt.instructions.length > 2  # words of the language model
    torch.testing.assert_close(layout.vectors[0, 0], model.backbone.read(model.prompt.instructions.numbers[-1, :1])[0])


@pytest.mark.parametrize("model", MODELS)
def test_a_beam_as_wide_as_the_catalogue_finds_all_scores(speaking, model):
    loaded = speaking(model, "--beam_size=60", *(("--id_embedding=False",) if model == "TokenRec-beam" else ()))
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0][:3]
    with torch.no_grad():
        exact = exact_scores(model, rows).float()
        scores, beams = model.score_all(rows), model.generate(rows, width=60)
    torch.testing.assert_close(scores.float(), exact, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(beams.log_probs.float(), exact.gather(1, beams.items), atol=1e-4, rtol=1e-4)
    assert (beams.items > 0).all()


@pytest.mark.parametrize("model", MODELS)
def test_loss_over_windows_equals_that_over_prefixes(speaking, config_of, model):
    from recbole.data import create_dataset, data_preparation

    still = [argument for argument in STILL_OF[model] if not argument.startswith("--dropout")]
    loaded = speaking(model, "--MAX_ITEM_LIST_LENGTH=24", "--train_batch_size=100000", *still)
    config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=24")
    rows = data_preparation(config, create_dataset(config))[0]
    model = loaded.model.train()
    with torch.no_grad():
        (windows,) = list(loaded.data.train)
        window_loss = model.calculate_loss(windows).codes
        total = sum(model.calculate_loss(batch).codes * len(batch) for batch in rows)
    assert window_loss.item() == pytest.approx(total.item() / loaded.data.train.n_targets, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_adapters_codes_and_heads_learn_and_nothing_else_of_the_model(speaking, model):
    loaded = speaking(model, *SPOKEN)
    moved = moved_by_training(loaded, 3)
    theirs = {name for name, _ in loaded.model.named_parameters() if name.startswith("backbone.")}
    assert {name for name in theirs if "lora_" in name} <= moved
    assert not any(name in moved for name in theirs if "lora_" not in name)
    words = "item_codes.words.weight" if model == "TIGER" else "items.table.words.weight"
    assert {words, "code_heads.0.weight", "code_heads.2.bias", "prompt.instructions.blank"} <= moved


def test_scores_start_with_the_spread_that_they_have_behind_a_compact_model(speaking, staged):
    spread = {}
    for name, build in (("llm", speaking), ("compact", staged)):
        loaded = build("TIGER", "--code_vectors_init=vectors", "--dropout=0")
        targets = loaded.model.decoder.targets(loaded.model.windows(next(iter(loaded.data.train))))
        spread[name] = loaded.model.code_heads[0](targets.states[:, 0]).std(1).mean().item()
    assert 0.2 < spread["llm"] / spread["compact"] < 5


@pytest.mark.parametrize("model, further", [("TIGER", ()), ("SIIT", (*WORDS, *ROUND)), ("TokenRec-beam", ())])
def test_a_run_ends_with_scores_that_its_checkpoint_gives_again(run_tiny, workplace, model, further):
    from recbole_contrec import recommend
    from recbole_contrec.quick_start import load_data_and_model

    result = run_tiny(model, *LLM, *SPOKEN, *further, "--run_name=on")
    loaded = load_data_and_model(result["checkpoint"])
    again = loaded.trainer.evaluate(loaded.data.test, load_best_model=False)["ndcg@10"]
    assert again == pytest.approx(result["test_result"]["ndcg@10"])
    assert len(recommend(loaded, users=["u1"], k=5)) == 5
    assert (workplace / "saved" / "on" / "adapter").is_dir()
    if further:
        assert result["refinements"]


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_run_goes_on_to_the_same_model(run_tiny, workplace, monkeypatch, model):
    arguments = (*LLM, *SPOKEN, "--epochs=2")
    run_tiny(model, *arguments, "--run_name=whole")
    save_last = RunTrainer.save_state

    def save_and_die(self, now, train_data):
        save_last(self, now, train_data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunTrainer, "save_state", save_and_die)
        run_tiny(model, *arguments, "--run_name=cut")
    run_tiny(model, *arguments, "--run_name=cut", resume="saved/cut")
    whole, cut = (checkpoint.load(workplace / "saved" / name / "last.safetensors").tensors for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole if key.startswith("model."))


# items described by their words


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("TIGER", LLM),
        ("TIGER", ()),
        ("TIGER", ("--backbone=t5",)),
        ("TokenRec-beam", LLM),
        ("TokenRec-beam", ()),
    ],
)
def test_words_describe_items_to_every_language_model(staged, model, arguments):
    loaded = staged(model, *arguments, *WORDS, *ROUND)
    model = loaded.model
    improvement, decoder = model.improvement, model.decoder
    items = improvement.described_items(decoder)
    texts = loaded.data.dataset.item_texts
    assert len(items) == 60 and set(improvement.lengths[items].tolist()) != {0}
    prompts = improvement.prompts(items, decoder)
    assert prompts.vectors.shape[1] == 1 + int(improvement.lengths.max()) and "title" in texts
    # padding is inert: one item alone gives what it gives among longer ones
    model.eval()
    with torch.no_grad():
        codes = decoder.item_codes.codes[items]
        all_at_once = decoder.log_probs(prompts.vectors, codes, prompts.length)
        for place in (0, 11):
            alone = improvement.prompts(items[place : place + 1], decoder)
            one = decoder.log_probs(alone.vectors, codes[place : place + 1], alone.length)
            torch.testing.assert_close(one, all_at_once[place : place + 1], atol=1e-4, rtol=1e-4)
    model.train()
    loss = model.calculate_loss(next(iter(loaded.data.train)))
    assert loss.alignment > 0 and loss.description > 0
    loss.description.backward()
    assert improvement.marks.grad[1].any() and not improvement.marks.grad[0].any()
    refined = model.eval().refine(())
    known = refined.codes[items]
    assert len(known.unique(dim=0)) == len(items)


def test_alignment_in_words_is_learned(staged):
    """A model that is trained to tell items from their texts writes codes that belong to them."""
    loaded = staged("TIGER", *WORDS, "--refine_rounds=0", "--alignment_weight=1", "--alignment_items=60", "--dropout=0")
    model = loaded.model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        optimiser.zero_grad()
        alignment, description = model.improvement.weighted_losses(model.decoder)
        first = first or (alignment.item(), description.item())
        (alignment + description).backward()
        optimiser.step()
    assert alignment < 0.5 * first[0] and description < 0.5 * first[1]


def test_a_template_says_what_is_read_of_an_item(staged):
    whole, title = (
        staged("TIGER", *WORDS, *ROUND, *arguments).model.improvement.lengths.sum()
        for arguments in ((), ("--description_template={title}",))
    )
    assert 0 < title < whole
    cut = staged("TIGER", *WORDS, *ROUND, "--description_max_tokens=3").model.improvement
    assert cut.numbers.shape[1] == 3 and cut.lengths.max() == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--llm={llm}", "--backbone=t5"), "needs backbone=causal"),
        (("--lora_rank=3",), "set llm as well"),
        (("--held_out_instruction=what now",), "needs instructions"),
        (
            ("--llm={llm}", "--MAX_ITEM_LIST_LENGTH=300"),
            "MAX_ITEM_LIST_LENGTH=300 takes up to 903 positions.*reads 512",
        ),
        (("--llm={llm}", *WORDS, *ROUND, "--description_max_tokens=600"), "description_max_tokens=600"),
        (("--self_improve=True", *ROUND, "--description_max_tokens=6"), "for item_descriptions=words only"),
        (
            (*WORDS, *ROUND, "--text_fields=[]"),
            "item_descriptions=words: 'tiny' has no item texts.*item_descriptions=~",
        ),
        ((*WORDS, *ROUND, "--description_template={titel}"), "did you mean title"),
        (("--item_descriptions=words",), "set self_improve=True as well"),
    ],
)
def test_what_cannot_be_is_said(assembled, arguments, message):
    with pytest.raises(UserError, match=message):
        assembled("TIGER", *(argument.replace("{llm}", str(STORIES)) for argument in arguments))
