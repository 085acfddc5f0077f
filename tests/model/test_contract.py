"""What every generative model of this package keeps to: losses over windows equal losses over prefixes, padding is
inert, scores are as RecBole's evaluator takes them, every switch runs, and settings that do not go together are
refused."""

import pytest
import torch

from recbole_contrec.tokenizer import MaskedVQ, SigmaVAE, WholeVector
from tests.helpers.models import NoNoise, each, stirred, untrained
from tests.helpers.options import STILL_OF

T5 = ("--backbone=t5", "--sampled_prefixes=1000")  # all targets of these windows

SPEAKING = ("--answer_weight=0.1", "--text_weight=0.3", "--text_bonus=0.2", "--vocabulary_size=300")
SCORED = {
    "ContRec": [
        (),
        SPEAKING,
        ("--prompt_text=words", "--vocabulary_size=300"),
        ("--noise_levels=20", "--sampling_steps=5", "--num_samples=3", "--ddim_eta=1.0"),
    ],
    "DeftRec": [
        (),
        ("--condition_pooling=mean",),
        (*SPEAKING, "--condition_pooling=mean"),
        ("--noise_levels=20", "--sampling_steps=5", "--num_samples=3", "--ddim_eta=1.0"),
    ],
    "TokenRec": [(), ("--backbone=t5",)],
    "TIGER": [("--beam_size=60",), ("--beam_size=60", "--backbone=t5")],
    "SIIT-states": [("--beam_size=60",)],
}
WINDOWED = {
    "ContRec": [
        (),
        ("--item_positions=each",),
        ("--user_tokens=0", "--soft_prompt_length=0"),
        ("--prompt_text=bag",),
        ("--prompt_text=words",),
        ("--prompt_text=words", "--item_positions=each"),
    ],
    "DeftRec": [
        ("--condition_pooling=mean",),
        ("--condition_pooling=last",),
        ("--item_positions=each",),
        ("--user_tokens=0", "--soft_prompt_length=0"),
    ],
    "TokenRec": [
        (),
        ("--item_positions=each",),
        ("--num_user_codebooks=0", "--instructions=[]"),
        ("--projection_size=8",),
        T5,
        (*T5, "--item_positions=each"),
    ],
    "TokenRec-beam": [(), ("--id_embedding=False", "--num_user_codebooks=0", "--instructions=[]")],
    "TIGER": [(), ("--user_buckets=7", "--label_smoothing=0.1"), T5, (*T5, "--user_buckets=7")],
    "SIIT-states": [(), T5],
}
LEARNING = {
    "ContRec": [("--dispersive_weight=0.5", "--condition_dropout=0.5")],
    "DeftRec": [("--condition_dropout=0.5",)],
    "TokenRec": [(), T5],
    "TokenRec-beam": [(), ("--id_embedding=False",), ("--self_improve=True", "--refine_every=1")],
    "TIGER": [("--user_buckets=7",), ("--backbone=t5",)],
    "SIIT-states": [(), ("--backbone=t5",)],
    "SIIT": [()],
}


FROZEN = {"items.table.weight"}  # beside the tokenizers


# losses


@pytest.mark.parametrize("model, arguments", each(WINDOWED))
def test_window_loss_equals_prefix_loss(staged, config_of, model, arguments):
    from recbole.data import create_dataset, data_preparation

    loaded = staged(model, "--MAX_ITEM_LIST_LENGTH=30", "--train_batch_size=100000", *STILL_OF[model], *arguments)
    recommender = loaded.model.double().train()
    rows_config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=30")  # RecBole's own rows, one target each
    rows = data_preparation(rows_config, create_dataset(rows_config))[0]
    with NoNoise(recommender):
        (windows,) = list(loaded.data.train)
        window_loss = recommender.calculate_loss(windows)[0]
        total, count = 0.0, 0
        for batch in rows:
            total += recommender.calculate_loss(batch)[0] * len(batch)
            count += len(batch)
    assert count == loaded.data.train.n_targets == recommender.windows.count_targets(windows)
    assert window_loss.item() == pytest.approx((total / count).item(), abs=1e-5)


@pytest.mark.parametrize(
    "model, arguments", each({**dict.fromkeys(("ContRec", "DeftRec"), [()]), "TokenRec": [(), T5]})
)
def test_padding_gets_no_gradient_and_changes_no_loss(staged, model, arguments):
    loaded = staged(model, *STILL_OF[model], *arguments, "--repeat_bias=False")
    recommender = loaded.model.double().train()
    batch = max(loaded.data.train, key=lambda batch: batch["item_id_list"].numel())
    read = []

    def keep(tokens, items, original=recommender.item_vectors.add_to):
        vectors = original(tokens, items)
        vectors.retain_grad()
        read.append((items, vectors))
        return vectors

    recommender.item_vectors.add_to = keep
    with NoNoise(recommender):
        loss = recommender.calculate_loss(batch).ranking
        loss.backward()
        items = torch.cat([items.flatten() for items, _ in read])
        gradient = torch.cat([vectors.grad.abs().sum((2, 3)).flatten() for _, vectors in read])
        assert (items == 0).any()
        assert (gradient[items == 0] == 0).all() and (gradient[items > 0] > 0).all()
        recommender.item_vectors.add_to = lambda tokens, items: read_otherwise(keep(tokens, items), items)
        torch.testing.assert_close(recommender.calculate_loss(batch).ranking, loss)


def read_otherwise(vectors, items):
    """Something else in the places of the padding."""
    return vectors + 10 * (items == 0)[..., None, None]


@pytest.mark.parametrize("model, arguments", each(LEARNING))
def test_tokenizers_are_frozen_and_the_rest_learns(staged, model, arguments):
    loaded = staged(model, *arguments)
    recommender = stirred(loaded.model)
    tokenizers = {
        name: part for name, part in recommender.named_modules() if isinstance(part, (SigmaVAE, MaskedVQ, WholeVector))
    }
    assert not any(tokenizer.training for tokenizer in tokenizers.values())
    sum(recommender.calculate_loss(next(iter(loaded.data.train)))).backward()
    frozen = {name for name, parameter in recommender.named_parameters() if not parameter.requires_grad}
    assert not untrained(recommender)
    assert bool(frozen) == bool(tokenizers)
    beside = {name for name in frozen if not name.startswith(tuple(f"{tokenizer}." for tokenizer in tokenizers))}
    assert beside <= FROZEN | ({"item_vectors.weight"} if "beam" in model else set())


# scores


@pytest.mark.parametrize("model, arguments", each(SCORED))
def test_scores_keep_the_contract(staged, model, arguments):
    """Fresh and writable, equal to ``predict``, to the best K and to the scores of each row alone."""
    loaded = staged(model, *arguments)
    recommender = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    first = recommender.full_sort_predict(rows)
    first[:, 0] = -torch.inf  # as RecBole's trainer does
    second = recommender.full_sort_predict(rows)
    assert second.shape == (len(rows), recommender.n_items) and torch.isfinite(second).all()
    torch.testing.assert_close(first[:, 1:], second[:, 1:])
    torch.testing.assert_close(recommender.predict(rows), second.gather(1, rows["item_id"][:, None]).squeeze(1))
    best, items = recommender.top_k(rows, 5)
    wanted, numbers = first.topk(5, dim=1)
    torch.testing.assert_close(best, wanted)
    torch.testing.assert_close(first.gather(1, items), best)  # items of equal scores may change places
    assert all(len(row.unique()) == 5 for row in items) and (items == numbers).float().mean() > 0.8
    alone = torch.cat([recommender.full_sort_predict(rows[row : row + 1]) for row in range(len(rows))])
    torch.testing.assert_close(second, alone, atol=1e-4, rtol=1e-4)
