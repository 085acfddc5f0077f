"""Split at a moment, a model learns nothing from what happens later: with other events behind the moment its weights,
the files of its stages and the reports of these are the same, bit for bit."""

import numpy as np
import pytest
import torch

from recbole_contrec.quick_start import run
from recbole_contrec.storage import checkpoint
from tests.helpers.options import TINY, TINY_OF, changed

MOMENT = 12
USERS, ITEMS, COLD = 30, 36, 6  # items in training, and others
NEGATIVES = "--train_neg_sample_args={'distribution': '%s', 'sample_num': 1}"
OURS = {
    "ContRec": ("--repeat_bias=True", "--ranking_negatives=9", "--ranking_negatives_alpha=0.5"),
    "ContRec-paper": ("--token_noise=True",),
    "DeftRec": ("--contrastive_weight=0.1", "--negative_source=popularity"),
    "TokenRec": ("--repeat_bias=True",),
    "TokenRec-beam": (),
    "TIGER": ("--user_buckets=5", "--generate_seen=~"),
    "SIIT": ("--epochs=3",),
    "SIIT-states": ("--epochs=3",),
    "SASRecAll": (),
    "SASRecAll-repeat": (),
    "SASRecAll-svd": (),
    "SASRecAll-texts": (),
    "Pop": (),
}
CASES = [
    *OURS.items(),
    ("ContRec", ("--item_vectors=lightgcn", "--lightgcn_epochs=2")),
    ("ContRec", ("--item_vectors=text", "--text_whitening=0.5", "--answer_weight=0.1", "--vocabulary_size=300")),
    ("TokenRec", ("--item_vectors=text",)),
    ("TIGER", ("--item_vectors=text+svd", "--semantic_ids=rkmeans")),
    ("TIGER", ("--semantic_ids=clusters", "--backbone=t5")),
    *((model, ()) for model in ("SASRec", "GRU4Rec", "BERT4Rec", "FPMC", "BPR", "LightGCN", "ItemKNN")),
    ("SASRec", ("--loss_type=BPR", NEGATIVES % "uniform")),
    ("SASRec", ("--loss_type=BPR", NEGATIVES % "popularity")),
    ("BPR", (NEGATIVES % "popularity",)),
]


def events(seed):
    """Events before the moment, always the same ones, and those from it on by a seed: other items, other users, another
    number of them. What is first seen behind the moment stands at the top of the file, so that ids have one numbering.
    """
    past, later = np.random.default_rng(0), np.random.default_rng(seed)
    rows = [(f"u{user}", f"i{ITEMS + user % COLD}", MOMENT + 7) for user in range(USERS, USERS + COLD)]
    for user in range(USERS):
        start, length = past.integers(ITEMS), past.integers(3, 10)
        rows += [(f"u{user}", f"i{(start + step) % ITEMS}", step + past.random()) for step in range(length)]
    for user in range(USERS + COLD):
        items = later.integers(0, ITEMS + COLD, later.integers(1, 9))
        rows += [(f"u{user}", f"i{item}", MOMENT + number) for number, item in enumerate(items)]
    return rows


def learned(folder, model, arguments, rows):
    """Tensors of a model trained on some events, and the stages it was trained with, by name."""
    path = folder / "data" / "shop"
    path.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (path / "shop.inter").write_text("\n".join(lines) + "\n")
    texts = [f"i{item}\tTitle of {item}\t{'odd' if item % 2 else 'even'} kind" for item in range(ITEMS + COLD)]
    header = "item_id:token\ttitle:token_seq\tgenre:token_seq"
    (path / "shop.item").write_text("\n".join([header, *texts]) + "\n")
    own = [
        f"--data_path={folder / 'data'}",
        f"--checkpoint_dir={folder / 'saved'}",
        f"--eval_args={{'split': {{'GTS': [{MOMENT}, {MOMENT + 3}]}}}}",
        "--epochs=1",
        "--eval_step=0",
        "--train_batch_size=64",
    ]
    result = run(model, "shop", arguments=changed([*TINY_OF.get(model, TINY), *own], arguments))
    stages = sorted((folder / "saved" / "stages").glob("*.safetensors"))
    found = {path.name: checkpoint.load(path) for path in stages}
    reports = {name: stage["report"] for name, stage in result["stages"].items()}
    last = checkpoint.load(result["checkpoint"])
    weights = {name: tensor for name, tensor in last.tensors.items() if name.startswith(("model.", "other."))}
    return weights, {name: stage.tensors for name, stage in found.items()}, reports, result


@pytest.mark.parametrize("model, arguments", CASES, ids=lambda case: case if isinstance(case, str) else " ".join(case))
def test_nothing_behind_the_moment_is_learned_from(workplace, model, arguments):
    first, second = (learned(workplace / str(seed), model, arguments, events(seed)) for seed in (1, 2))
    assert first[3]["card"]["held_out"] != second[3]["card"]["held_out"]  # the events are others
    assert first[3]["test_result"] != second[3]["test_result"] or model in ("Pop", "ItemKNN")
    assert first[0].keys() == second[0].keys() and first[0]
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]), name
    assert first[1].keys() == second[1].keys() and first[2] == second[2]
    for name, tensors in first[1].items():
        assert tensors.keys() == second[1][name].keys()
        assert all(torch.equal(tensors[part], second[1][name][part]) for part in tensors), name


@pytest.mark.parametrize("model", ["ContRec", "TIGER", "SASRec", "BPR"])
def test_what_is_before_the_moment_is_learned_from(workplace, model):
    arguments, rows = OURS.get(model, ()), events(1)
    place = next(number for number, (*_, time) in enumerate(rows) if 1 < time < MOMENT)
    others = [*rows[:place], (rows[place][0], rows[-1][1], rows[place][2]), *rows[place + 1 :]]
    first, second = (learned(workplace / name, model, arguments, given) for name, given in (("a", rows), ("b", others)))
    assert any(not torch.equal(tensor, second[0][name]) for name, tensor in first[0].items())
    assert first[1].keys() != second[1].keys() or not first[1]
