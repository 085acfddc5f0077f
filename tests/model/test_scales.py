"""How large the vectors are that models read, and that the diffusion works on, under every setting that decides about
it."""

import numpy as np
import pytest
import torch

from recbole_contrec.model.parts.learned_vectors import rms_of_rows

FROZEN = ("--train_item_vectors=False", "--item_vectors_init=vectors")
SOURCES = ("svd", "text", "svd+text", "lightgcn", "vectors.npy")


def rms(tensor):
    return tensor.detach().float().square().mean().sqrt().item()


@pytest.fixture
def vectors_file(workplace):
    """A table of vectors far from unit size."""
    np.save(workplace / "vectors.npy", 300 + 40 * np.random.default_rng(0).standard_normal((60, 16)).astype("float32"))
    (workplace / "vectors.tokens.txt").write_text("\n".join(f"i{item}" for item in range(60)) + "\n")


def known_items(model):
    return 1 + (model.item_vectors.weight[1:] != 0).any(1).nonzero().T


@pytest.mark.parametrize(
    "model, source, trained",
    [
        *(("ContRec", source, FROZEN) for source in SOURCES),
        ("ContRec", "svd", ()),
        ("ContRec", "svd", ("--item_vectors_init=random",)),
        ("TokenRec", "svd", FROZEN),
        ("TokenRec", "svd", ()),
    ],
)
def test_item_vectors_are_read_as_large_as_the_tokens_beside_them(staged, vectors_file, model, source, trained):
    loaded = staged(model, f"--item_vectors={source}", "--lightgcn_epochs=1", *trained).model.eval()
    items = known_items(loaded)
    tokens = loaded.items(items)  # [1, N, K, D]
    identity = loaded.item_vectors.add_to(torch.zeros_like(tokens), items)[:, :, 0]
    tokens = tokens[:, :, 0]
    assert 0.04 < rms(identity) < 0.2 and 0.04 < rms(tokens) < 0.4
    assert 1 / 4 < rms(identity) / rms(tokens) < 4


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize(
    "model, source, trained",
    [
        *(("ContRec", source, FROZEN) for source in SOURCES),
        ("ContRec", "svd", ("--item_vectors_init=vectors",)),
        ("ContRec", "svd", ("--item_vectors_init=random",)),
        ("DeftRec", "svd", FROZEN),
        ("DeftRec", "svd", ()),
    ],
)
def test_targets_of_the_diffusion_are_as_large_as_its_noise(staged, vectors_file, model, source, trained, similarity):
    loaded = staged(model, f"--item_vectors={source}", "--lightgcn_epochs=1", f"--similarity={similarity}", *trained)
    recommender, seen = loaded.model.train(), []
    for name in ("loss", "contrastive_loss"):

        def keep(condition, target, *negatives, original=getattr(recommender.head, name)):
            seen.append(target)
            return original(condition, target, *negatives)

        setattr(recommender.head, name, keep)
    recommender.calculate_loss(next(iter(loaded.data.train)))
    assert len(seen) == 1 and rms(seen[0]) == pytest.approx(1, rel=0.25)


def test_lengths_count_for_the_inner_product(staged):
    model = staged("ContRec", "--similarity=inner", *FROZEN).model
    vectors = model.item_vectors.weight
    scaled = model.at_unit_scale(vectors)
    assert scaled[known_items(model)].square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)
    ratio = scaled[known_items(model)[0]] / vectors[known_items(model)[0]]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))


def test_rows_of_zeros_do_not_count():
    table = torch.cat([torch.zeros(5, 4), torch.full((3, 4), -2.0)])
    assert rms_of_rows(table).item() == 2


@pytest.mark.parametrize("source", SOURCES)
def test_user_tokens_are_as_large_as_item_tokens(staged, vectors_file, source):
    loaded = staged("ContRec", f"--item_vectors={source}", "--lightgcn_epochs=1")
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    users = model.users(rows["user_id"], rows["item_id_list"])
    items = model.items.adapter(model.items.table(known_items(model)).unflatten(-1, (2, -1)))
    assert 1 / 3 < rms(users) / rms(items) < 3


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("TokenRec", ()),
        ("TokenRec-beam", ("--id_embedding=False",)),
        ("TIGER", ()),
        ("TIGER", ("--code_vectors_init=vectors",)),
    ],
)
def test_codes_are_read_as_large_as_meant(staged, model, arguments):
    from recbole_contrec.model.parts.code_table import CODE_RMS

    recommender = staged(model, *arguments).model
    table = recommender.item_codes if model == "TIGER" else recommender.items.table
    assert rms(table.words.weight) == pytest.approx(CODE_RMS, rel=0.25)
