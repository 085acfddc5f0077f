"""ContRec: what its losses teach, what it reads of users and items, and what comes of its settings."""

import math
from functools import partial

import pytest
import torch

from recbole_contrec.data.windows import NEXT_PREFIX
from tests.helpers.options import STILL_CONTREC as STILL


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a ContRec whose stages are done."""
    return partial(staged, "ContRec")


def test_every_loss_term_has_a_name_and_its_weight(ready):
    loaded = ready("--dispersive_weight=0.5")
    torch.manual_seed(0)
    terms = loaded.model.train().calculate_loss(next(iter(loaded.data.train)))
    assert terms._fields == ("ranking", "regression", "dispersive", "language")
    assert all(torch.isfinite(term) for term in terms) and terms.dispersive != 0


@pytest.mark.parametrize("term", ["ranking", "regression", "dispersive"])
def test_a_weight_scales_its_term_and_no_other(ready, term):
    def terms(weight):
        model = ready(*STILL, f"--{term}_weight={weight}").model.train()
        batch = next(iter(ready().data.train))
        torch.manual_seed(0)
        return model.calculate_loss(batch)._asdict()

    whole, half = terms(0.8), terms(0.4)
    for name in whole:
        torch.testing.assert_close(half[name], whole[name] * (0.5 if name == term else 1.0))


def test_targets_teach_the_item_vectors_through_ranking_alone(ready):
    loaded = ready(*STILL, "--train_batch_size=20")
    model = loaded.model.train()
    batch = next(iter(loaded.data.train))
    diffusion = model.head.loss(*_condition_and_target(model, batch))
    diffusion.regression.backward()
    targets_only = torch.isin(batch[NEXT_PREFIX + "item_id_list"].unique(), batch["item_id_list"].unique(), invert=True)
    assert targets_only.any()  # otherwise the next line would show nothing
    only = batch[NEXT_PREFIX + "item_id_list"].unique()[targets_only]
    assert model.item_vectors.weight.grad[only[only > 0]].abs().sum() == 0


def _condition_and_target(model, batch):
    condition, target, *_ = model.targets(batch).targets
    return condition, model.at_unit_scale(model.item_vectors(target))


def test_user_tokens_matter_and_unknown_users_have_a_stand_in(ready):
    loaded = ready("--fold_in=False")
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    known = model.full_sort_predict(rows)
    rows["user_id"] = torch.zeros_like(rows["user_id"])  # nobody
    unknown = model.full_sort_predict(rows)
    assert torch.isfinite(unknown).all() and not torch.allclose(known, unknown)
    with torch.no_grad():
        model.users.unknown.add_(1)
    assert not torch.allclose(model.full_sort_predict(rows), unknown)
    assert torch.equal(
        model.users(rows["user_id"][:1], rows["item_id_list"][:1]), model.users.adapter(model.users.unknown)[None]
    )


def test_a_held_out_pair_changes_no_vector_and_no_token(workplace, assembled):
    """A second data set differs in validation and test items only; everything before training is the same."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.quick_start import assemble
    from recbole_contrec.settings.config import Config
    from tests.helpers.options import TINY_CONTREC

    source = (workplace / "data" / "tiny" / "tiny.inter").read_text().splitlines()
    last_two = {}
    for number, line in enumerate(source[1:], 1):
        last_two.setdefault(line.split("\t")[0], []).append(number)
    changed = list(source)
    for numbers in last_two.values():
        for number in numbers[-2:] if len(numbers) > 3 else numbers[-1:]:
            fields = changed[number].split("\t")
            changed[number] = "\t".join([fields[0], "i7", *fields[2:]])
    folder = workplace / "data" / "planted"
    folder.mkdir()
    # The items are named in the same order, so that both data sets number them alike.
    everybody = sorted({line.split("\t")[1] for line in source[1:]})
    head = [f"u-all\t{item}\t1\t{time}" for time, item in enumerate(everybody + ["i1", "i2"])]
    (folder / "planted.inter").write_text("\n".join([source[0], *head, *changed[1:]]) + "\n")
    (workplace / "data" / "tiny" / "tiny.inter").write_text("\n".join([source[0], *head, *source[1:]]) + "\n")

    tokens = {}
    for name in ("tiny", "planted"):
        config = Config("ContRec", name, arguments=[*TINY_CONTREC, f"--data_path={workplace / 'data'}"])
        loaded = assemble(config, load_data(config))
        loaded.trainer.run_stages(loaded.data.train)
        tokens[name] = loaded
    one, other = tokens["tiny"], tokens["planted"]
    assert one.trainer.identity.items == other.trainer.identity.items
    assert not torch.equal(_test_items(one), _test_items(other))
    for part in ("items.table.weight", "users.vectors"):
        assert torch.equal(one.model.state_dict()[part], other.model.state_dict()[part]), part


def _test_items(loaded):
    return loaded.data.test.dataset.inter_feat["item_id"]


def test_vectors_from_a_file_are_aligned_by_item_token(ready, workplace):
    import numpy as np

    tokens = [f"i{number}" for number in range(60)]
    np.save(workplace / "v.npy", np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32))
    (workplace / "v.tokens.txt").write_text("\n".join(tokens) + "\n")
    loaded = ready("--item_vectors=v.npy", "--item_vectors_init=vectors", "--train_item_vectors=False")
    ours = loaded.model.item_vectors.weight.numpy()
    numbers = loaded.data.dataset.field2token_id["item_id"]
    rows = np.array([numbers[token] for token in tokens if token in numbers])
    table = np.load(workplace / "v.npy")[[token in numbers for token in tokens]]
    scaled = (table - table.mean(0)) / np.sqrt(table.var(0).mean())
    np.testing.assert_allclose(ours[rows], scaled, rtol=1e-3, atol=1e-3)
    assert loaded.model.users.vectors[1:].abs().sum(1).gt(0).all()


def test_settings_of_a_model_on_one_data_set(config_of, workplace):
    """`ContRec_on_tiny.yaml` counts on that data set only, for heirs as well, below what these and the user say."""
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.errors import UserError
    from recbole_contrec.settings.registry import list_models

    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / "ContRec_on_tiny.yaml").write_text("weight_decay: 0.5\nnoise_levels: 77\ndenoiser_depth: 4\n")
    (folder / "ContRec_on_other.yaml").write_text("weight_decay: 0.9\n")
    (folder / "Heir.yaml").write_text("extends: ContRec\nnoise_levels: 55\n")
    config = config_of("ContRec", "--denoiser_depth=1")
    assert (config["weight_decay"], config["noise_levels"], config["denoiser_depth"]) == (0.5, 77, 1)
    config = config_of("Heir")
    assert (config["weight_decay"], config["noise_levels"], config["denoiser_depth"]) == (0.5, 55, 4)
    assert not any("_on_" in listed.name for listed in list_models(properties_folders()))
    (folder / "ContRec_on_tiny.yaml").write_text("weight_decai: 0.5\n")
    with pytest.raises(UserError, match="did you mean weight_decay"):
        config_of("ContRec")


def test_histories_have_noise_of_their_own_whatever_stands_beside_them(assembled):
    told = ("--sampling_steps=4", "--num_samples=2", "--ddim_eta=1", "--noisy_skip=True")
    own, shared = (assembled("ContRec", *told, f"--common_noise={value}").model.eval() for value in (False, True))
    condition = torch.randn(1, own.config["hidden_size"]).expand(3, -1)
    histories = torch.tensor([[1, 2, 0], [3, 4, 0], [1, 2, 0]])
    drawn = own.preferences(condition, histories)  # [2, 3, d]
    torch.testing.assert_close(drawn[:, 0], drawn[:, 2])
    assert (drawn[:, 0] - drawn[:, 1]).abs().mean() > 0.05
    alone = own.preferences(condition[:1], torch.tensor([[3, 4, 0, 0, 0]]))  # longer by its padding
    torch.testing.assert_close(alone[:, 0], drawn[:, 1])
    together = shared.preferences(condition, histories)
    torch.testing.assert_close(together[:, 0], together[:, 1])


@pytest.mark.parametrize("pooling", ["likelihood", "mean"])
def test_scores_pool_the_samples_as_the_settings_say(assembled, pooling):
    loaded = assembled("ContRec", "--num_samples=3", "--sampling_steps=3", f"--sample_pooling={pooling}")
    model, rows = loaded.model.eval(), next(iter(loaded.data.test))[0]
    with torch.no_grad():
        drawn = model.generate_preferences(rows)  # [3, B, d]
        each = torch.stack([model.retrieval.scores(one, model.item_vectors.weight) for one in drawn])  # [3, B, N]
        expected = each.mean(0) if pooling == "mean" else each.logsumexp(0) - math.log(3)
        found = model.retrieval.scores(drawn, model.item_vectors.weight)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("told", [(), ("--item_positions=each",)])
def test_items_read_once_for_a_batch_are_what_each_history_reads(assembled, told):
    """A batch whose histories name more items than there are, and its rows in small batches, which name fewer."""
    loaded = assembled("ContRec", *told)
    model, rows = loaded.model.eval(), next(iter(loaded.data.test))[0]
    for table in (model.items.table, model.item_vectors):
        torch.nn.init.normal_(table.weight)
    named = (rows["item_id_list"] > 0).sum(1)
    assert named.sum() > model.n_items > named[:2].sum()
    together = model.encode_histories(rows).conditions
    apart = torch.cat([model.encode_histories(rows[start : start + 2]).conditions for start in range(0, len(rows), 2)])
    torch.testing.assert_close(together, apart)
