"""recbole_contrec.warm_start: training goes on from a checkpoint with other users and items."""

import shutil

import pytest
import torch

from recbole_contrec import load_data_and_model, recommend
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.interface import ITEMS, USERS, HasItemCodes
from recbole_contrec.quick_start import assemble, run
from recbole_contrec.reloading import config_to_start_from
from recbole_contrec.warm_start import Places, row_tables, start_from

MODELS = {
    "ContRec": ("--text_similarity=2",),
    "ContRec, no users": ("--user_tokens=0", "--tokenizer=none", "--token_size=16", "--item_tokens=1"),
    "DeftRec": ("--fold_in=False",),
    "TokenRec": ("--distinct_codes=True",),
    "TokenRec-beam": (),
    "TIGER": ("--user_buckets=7",),
    "SIIT": ("--refine_rounds=0",),
    "SIIT-states": ("--refine_rounds=0",),
    "SASRecAll": ("--text_similarity=2",),
    "SASRec": (),
    "GRU4Rec": (),
    "BERT4Rec": (),
    "FPMC": (),
    "LightGCN": (),
}
GONE_ITEM, GONE_USER, NEW_ITEM, NEW_USER = "i7", "u3", "i99", "anna"


@pytest.fixture
def learned(run_tiny):
    """A function (case) -> checkpoint of a model after one epoch."""

    def train(case):
        return run_tiny(case.split(",")[0], "--epochs=1", *MODELS[case])["checkpoint"]

    return train


@pytest.fixture
def changed(tiny):
    """The data set ``tiny`` with an item and a user more and less, in a folder of its own."""
    folder = tiny.parent / "later"
    shutil.copytree(tiny, folder)
    path = folder / "tiny" / "tiny.inter"
    header, *rows = path.read_text().splitlines()
    rows = [row for row in rows if row.split("\t")[0] != GONE_USER and row.split("\t")[1] != GONE_ITEM]
    # bought by six users among their first items: it stands in training histories
    rows += [f"u{user}\t{NEW_ITEM}\t5\t0.5" for user in (1, 2, 5, 8, 13, 21)]
    rows += [f"{NEW_USER}\ti{item}\t5\t{time}" for time, item in enumerate((20, 21, 23, 24, 26))]
    path.write_text("\n".join([header, *rows]) + "\n")
    items = folder / "tiny" / "tiny.item"
    lines = [line for line in items.read_text().splitlines() if not line.startswith(f"{GONE_ITEM}\t")]
    items.write_text("\n".join([*lines, f"{NEW_ITEM}\tTitle of 99\todd kind"]) + "\n")
    return folder


def started(checkpoint, data_path, *arguments):
    """A model of some data that starts from a checkpoint, not trained any further."""
    arguments = [f"--data_path={data_path}", *arguments]
    config = config_to_start_from(checkpoint, None, None, None, (), arguments, None)
    loaded = assemble(config, load_data(config))
    start_from(loaded, checkpoint)
    loaded.model.eval()
    return loaded


@pytest.mark.parametrize("case", MODELS)
def test_kept_rows_stay_and_new_ones_can_be_ranked(learned, changed, case):
    checkpoint = learned(case)
    before, after = load_data_and_model(checkpoint), started(checkpoint, changed)
    then, now = before.model.state_dict(), after.model.state_dict()
    tables = row_tables(after.model, after.model.n_items, after.data.dataset.user_num)
    assert tables == row_tables(before.model, before.model.n_items, before.data.dataset.user_num)
    for what, gone, new in ((ITEMS, GONE_ITEM, NEW_ITEM), (USERS, GONE_USER, NEW_USER)):
        dataset = after.data.dataset
        field = dataset.iid_field if what == ITEMS else dataset.uid_field
        numbers, others = before.data.dataset.field2token_id[field], dataset.field2token_id[field]
        assert gone in numbers and gone not in others and new in others and new not in numbers
        kept = sorted(numbers.keys() & others.keys())
        rows, of_now = ([table[name] for name in kept] for table in (numbers, others))
        assert rows != of_now  # numbers have moved
        named = [name for name, kind in tables.items() if kind == what]
        assert named or what == USERS
        for name in named:
            assert torch.equal(then[name][rows], now[name][of_now]), name
    for name in then.keys() - tables.keys():
        if not name.endswith("text_similarity.vectors") and name != "users.weight":
            assert torch.equal(then[name], now[name]), name
    if case == "LightGCN":
        ranked = recommend(after, [NEW_USER], k=100, exclude_seen=False)
    else:
        ranked = recommend(after, histories=[["i20", NEW_ITEM, "i23"]], k=100, exclude_seen=False)
    scores = ranked.set_index("item_id")["score"]
    if isinstance(after.model, HasItemCodes):
        codes = after.model.code_table.codes
        row = after.data.dataset.field2token_id["item_id"][NEW_ITEM]
        assert (codes[row] < after.model.code_table.unknown_code).all()
        if case != "TokenRec" or "distinct" in str(MODELS[case]):
            known = codes[after.model.code_table.known]
            assert len(known.unique(dim=0)) == len(known)
    if "beam" not in case and not case.startswith(("TIGER", "SIIT")):
        assert torch.isfinite(torch.tensor(scores[NEW_ITEM]))


@pytest.mark.parametrize("case", MODELS)
def test_of_the_same_data_scores_stay(learned, tiny, case):
    checkpoint = learned(case)
    before, after = load_data_and_model(checkpoint), started(checkpoint, tiny)
    then, now = before.model.state_dict(), after.model.state_dict()
    assert then.keys() == now.keys() and all(torch.equal(then[name], now[name]) for name in then)
    assert recommend(before, ["u1", "u2"], k=5).equals(recommend(after, ["u1", "u2"], k=5))


@pytest.mark.parametrize("model", ["ContRec", "TIGER", "SASRec"])
def test_a_run_goes_on_from_there(learned, changed, model, caplog):
    checkpoint = learned(model)
    result = run(
        model, "tiny", arguments=[f"--data_path={changed}", "--run_name=later", "--epochs=1"], init_from=checkpoint
    )
    assert result["init_from"] == checkpoint and result["stages"] == {}
    assert "1 are new, 1 are gone" in caplog.text and "The optimizer starts anew" in caplog.text
    loaded = load_data_and_model("saved/later")
    assert NEW_ITEM in loaded.data.dataset.field2token_id["item_id"]
    moved = {
        k
        for k, v in loaded.model.state_dict().items()
        if not torch.equal(v, started(checkpoint, changed).model.state_dict()[k])
    }
    assert moved  # trained


def test_a_linear_map_places_new_items_among_the_known(run_tiny, changed):
    """With as many known rows as the map needs, a new item does not start at the mean of all."""
    checkpoint = run_tiny("SASRecAll", "--epochs=1", "--hidden_size=16")["checkpoint"]
    loaded = started(checkpoint, changed)
    weight = loaded.model.item_embedding.weight
    row = loaded.data.dataset.field2token_id["item_id"][NEW_ITEM]
    others = torch.cat([weight[1:row], weight[row + 1 :]])
    assert not torch.allclose(weight[row], others.mean(0), atol=1e-3)
    assert 0.2 < weight[row].norm() / others.norm(dim=1).mean() < 2


@pytest.mark.parametrize(
    ("case", "arguments", "message"),
    [
        ("SASRec", ["--hidden_size=32"], "does not fit the model as configured: .* was .* and is"),
        ("ContRec", ["--user_tokens=0"], "does not fit the model as configured"),
        ("TIGER", ["--codebook_size=8"], "does not fit the model as configured.*codebook_size"),
    ],
)
def test_another_model_is_refused(learned, changed, case, arguments, message):
    with pytest.raises(UserError, match=message):
        started(learned(case), changed, *arguments)


def test_words_of_an_own_vocabulary_are_refused(run_tiny, changed):
    checkpoint = run_tiny("ContRec", "--epochs=1", "--prompt_text=bag")["checkpoint"]
    with pytest.raises(UserError, match="ContRec has a vocabulary of its own"):
        started(checkpoint, changed)


def test_what_cannot_be_started_from_is_told_in_a_line(learned, changed, tiny):
    checkpoint = learned("SASRec")
    with pytest.raises(UserError, match="is a checkpoint of SASRec, not of GRU4Rec"):
        run("GRU4Rec", "tiny", init_from=checkpoint)
    with pytest.raises(UserError, match="give one of them"):
        run("SASRec", "tiny", init_from=checkpoint, resume=checkpoint)
    with pytest.raises(UserError, match="there is no checkpoint"):
        run("SASRec", "tiny", init_from="saved/none")
    with pytest.raises(UserError, match="--init_from= names no folder of a run"):
        run("SASRec", "tiny", init_from="")
    path = changed / "tiny" / "tiny.inter"
    header, rows = path.read_text().split("\n", 1)
    path.write_text(header + "\n" + rows.replace("\ti", "\tx"))
    with pytest.raises(UserError, match="none of its items stands in 'tiny'"):
        started(checkpoint, changed)


def test_places_match_by_name():
    place = Places.of(["[PAD]", "a", "b", "c"], ["[PAD]", "c", "d", "a"])
    assert place.old.tolist() == [0, 3, 0, 1] and place.gone == 1
    assert place.known.tolist() == [0, 1, 3] and place.new.tolist() == [2] and place.changed
    assert not Places.of(["[PAD]", "a"], ["[PAD]", "a"]).changed
    assert Places.of(["[PAD]", "a", "b"], ["[PAD]", "b", "a"]).changed
