"""ContRec inside RecBole: losses over windows equal losses over prefixes, padding is inert, scores keep the contract."""

import pytest
import torch

from recbole_contrec.data.windows import NEXT_PREFIX

STILL = ["--dropout=0", "--token_noise=False", "--user_token_dropout=0", "--window_context=0", "--regression_weight=0"]


class NoNoise:
    """The head's estimate without its draw of noise, so that two ways to the same loss can be compared."""

    def __init__(self, model):
        self.head = model.head
        self.estimate = model.head.estimate

    def __enter__(self):
        def estimate(condition):
            self.head.eval()
            try:
                return self.estimate(condition)
            finally:
                self.head.train()
        self.head.estimate = estimate

    def __exit__(self, *_):
        self.head.estimate = self.estimate


@pytest.fixture
def ready(assembled):
    """A function (*arguments) -> LoadedRun whose stages are done."""
    def build(*arguments):
        loaded = assembled("ContRec", *arguments)
        loaded.trainer._run_stages(loaded.data.train, False)
        return loaded
    return build


@pytest.mark.parametrize("arguments", [(), ("--item_positions=each",), ("--user_tokens=0", "--instruction_length=0")])
def test_window_loss_equals_prefix_loss(ready, config_of, arguments):
    from recbole.data import create_dataset, data_preparation

    loaded = ready("--MAX_ITEM_LIST_LENGTH=30", "--train_batch_size=100000", *STILL, *arguments)
    model = loaded.model.double().train()
    rows_config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=30")  # RecBole's own rows, one target each
    rows = data_preparation(rows_config, create_dataset(rows_config))[0]
    with NoNoise(model):
        (windows,) = list(loaded.data.train)
        window_loss = model.calculate_loss(windows).ranking
        total, count = 0.0, 0
        for batch in rows:
            total += model.calculate_loss(batch).ranking * len(batch)
            count += len(batch)
    assert count == loaded.data.train.n_targets
    assert window_loss.item() == pytest.approx((total / count).item(), abs=1e-5)


def test_padding_gets_no_gradient_and_changes_no_loss(ready):
    loaded = ready(*STILL)
    model = loaded.model.double().train()
    batch = max(loaded.data.train, key=lambda batch: batch["item_id_list"].numel())
    read = []

    def keep(items, original=model._read_items):
        vectors = original(items)
        vectors.retain_grad()
        read.append((items, vectors))
        return vectors

    model._read_items = keep
    with NoNoise(model):
        model.calculate_loss(batch).ranking.backward()
    items = torch.cat([items.flatten() for items, _ in read])
    gradient = torch.cat([vectors.grad.abs().sum((2, 3)).flatten() for _, vectors in read])
    assert (items == 0).any()
    assert (gradient[items == 0] == 0).all() and (gradient[items > 0] > 0).all()


def test_every_loss_term_has_a_name_and_its_weight(ready):
    loaded = ready("--dispersive_weight=0.5")
    torch.manual_seed(0)
    terms = loaded.model.train().calculate_loss(next(iter(loaded.data.train)))
    assert terms._fields == ("ranking", "regression", "dispersive")
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
    loaded = ready(*STILL, "--ranking_weight=0", "--train_batch_size=20")
    model = loaded.model.train()
    batch = next(iter(loaded.data.train))
    diffusion = model.head.loss(*_condition_and_target(model, batch))
    diffusion.regression.backward()
    targets_only = torch.isin(batch[NEXT_PREFIX + "item_id_list"].unique(), batch["item_id_list"].unique(), invert=True)
    assert targets_only.any()  # otherwise the next line would show nothing
    only = batch[NEXT_PREFIX + "item_id_list"].unique()[targets_only]
    assert model.item_vectors.weight.grad[only[only > 0]].abs().sum() == 0


def _condition_and_target(model, batch):
    condition, target, *_ = model._states_with_targets(
        batch, lambda item_seq, rows: model.forward(item_seq, batch["user_id"][rows]))
    return condition, model._unit_scale(model.item_vectors.weight[target])


def test_tokenizers_are_frozen_and_the_rest_learns(ready):
    loaded = ready("--dispersive_weight=0.5", "--condition_dropout=0.5")
    model = loaded.model.train()
    assert not model.item_tokenizer.training and not model.user_tokenizer.training
    sum(model.calculate_loss(next(iter(loaded.data.train)))).backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert without == set()
    assert all(name.split(".")[0] in ("item_tokenizer", "user_tokenizer", "item_tokens") for name in frozen)


def test_scores_are_fresh_writable_and_equal_to_predict(ready):
    loaded = ready()
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    first = model.full_sort_predict(rows)
    first[:, 0] = -torch.inf  # as RecBole's trainer does
    second = model.full_sort_predict(rows)
    assert second.shape == (len(rows), model.n_items) and torch.isfinite(second).all()
    torch.testing.assert_close(first[:, 1:], second[:, 1:])
    own = model.predict(rows)
    torch.testing.assert_close(own, second.gather(1, rows["item_id"][:, None]).squeeze(1))


@pytest.mark.parametrize("arguments", [(), ("--noise_levels=20", "--diffusion_steps=5", "--diffusion_samples=3",
                                            "--sampling_noise=1.0")])
def test_scores_do_not_depend_on_the_rest_of_the_batch(ready, arguments):
    loaded = ready(*arguments)
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    together = model.full_sort_predict(rows)
    alone = torch.cat([model.full_sort_predict(rows[row:row + 1]) for row in range(len(rows))])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_top_k_equals_the_full_ranking(ready):
    loaded = ready()
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    scores = model.full_sort_predict(rows)
    scores[:, 0] = -torch.inf
    best, items = model.top_k(rows, 5)
    wanted, numbers = scores.topk(5, dim=1)
    torch.testing.assert_close(best, wanted)
    assert torch.equal(items, numbers)


def test_user_tokens_matter_and_unknown_users_have_a_stand_in(ready):
    loaded = ready("--fold_in=False")
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    known = model.full_sort_predict(rows)
    rows["user_id"] = torch.zeros_like(rows["user_id"])  # nobody
    unknown = model.full_sort_predict(rows)
    assert torch.isfinite(unknown).all() and not torch.allclose(known, unknown)
    with torch.no_grad():
        model.unknown_user.add_(1)
    assert not torch.allclose(model.full_sort_predict(rows), unknown)
    assert torch.equal(model._read_users(rows["user_id"][:1], rows["item_id_list"][:1]), model.user_adapter(model.unknown_user)[None])


def test_a_held_out_pair_changes_no_vector_and_no_token(workplace, assembled):
    """A second data set differs in validation and test items only; everything before training is the same."""
    from conftest import TINY_CONTREC
    from recbole_contrec.config import Config
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.quick_start import assemble

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
        loaded.trainer._run_stages(loaded.data.train, False)
        tokens[name] = loaded
    one, other = tokens["tiny"], tokens["planted"]
    assert one.trainer.identity.items == other.trainer.identity.items
    assert not torch.equal(_test_items(one), _test_items(other))
    for part in ("item_tokens.weight", "user_vectors"):
        assert torch.equal(one.model.state_dict()[part], other.model.state_dict()[part]), part


def _test_items(loaded):
    return loaded.data.test.dataset.inter_feat["item_id"]


@pytest.mark.parametrize("arguments", [
    ("--tokenizer=plain",), ("--tokenizer=deterministic", "--token_noise=False"), ("--item_tokens=1",),
    ("--noise_levels=10", "--diffusion_steps=5", "--diffusion_samples=3", "--sampling_noise=1.0"),
    ("--guidance=2", "--condition_dropout=0.1"), ("--similarity=inner", "--item_vectors_init=vectors"),
    ("--train_item_vectors=False", "--item_vectors_init=vectors"), ("--item_identity=False", "--train_item_tokens=True"),
    ("--prediction=noise",), ("--prediction=v", "--noise_schedule=exp"), ("--ranking_negatives=20",),
    ("--dispersive_weight=0.25", "--dispersive_loss=covariance"), ("--item_vectors=lightgcn", "--lightgcn_epochs=1"),
    ("--user_tokens=0",), ("--window_context=3",)])
def test_every_switch_runs(ready, arguments):
    """One training step and one ranking with every part switched."""
    loaded = ready(*arguments)
    model = loaded.model.train()
    loss = sum(model.calculate_loss(next(iter(loaded.data.train))))
    loss.backward()
    assert torch.isfinite(loss)
    scores = model.eval().full_sort_predict(next(iter(loaded.data.test))[0])
    assert torch.isfinite(scores).all() and scores.std() > 0


@pytest.mark.parametrize("argument, words", [
    ("--n_heads=3", "n_heads=3 must divide hidden_size=16"), ("--diffusion_steps=500", "noise_levels=200"),
    ("--guidance=2.0", "condition_dropout"), ("--item_vectors=lightgnc", "did you mean lightgcn"),
    ("--item_vectors=missing.npy", "neither a file nor one of svd, lightgcn")])
def test_settings_that_do_not_go_together_leave_nothing_behind(config_of, workplace, argument, words):
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.errors import UserError
    from recbole_contrec.quick_start import assemble

    config = config_of("ContRec", argument)
    with pytest.raises(UserError, match=words):
        assemble(config, load_data(config))
    assert not (workplace / "log").exists() and not (workplace / "saved").exists()


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
    assert loaded.model.user_vectors[1:].abs().sum(1).gt(0).all()


def test_settings_of_a_model_on_one_data_set(config_of, workplace):
    """`ContRec_on_tiny.yaml` counts on that data set only, for heirs as well, below what these and the user say."""
    from recbole_contrec.errors import UserError
    from recbole_contrec.registry import list_models, properties_folders

    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / "ContRec_on_tiny.yaml").write_text("weight_decay: 0.5\nnoise_levels: 77\nhead_depth: 4\n")
    (folder / "ContRec_on_other.yaml").write_text("weight_decay: 0.9\n")
    (folder / "Heir.yaml").write_text("extends: ContRec\nnoise_levels: 55\n")
    config = config_of("ContRec", "--head_depth=1")
    assert (config["weight_decay"], config["noise_levels"], config["head_depth"]) == (0.5, 77, 1)
    config = config_of("Heir")
    assert (config["weight_decay"], config["noise_levels"], config["head_depth"]) == (0.5, 55, 4)
    assert not any("_on_" in listed.name for listed in list_models(properties_folders()))
    (folder / "ContRec_on_tiny.yaml").write_text("weight_decai: 0.5\n")
    with pytest.raises(UserError, match="did you mean weight_decay"):
        config_of("ContRec")
