"""What every generative model of this package keeps to: losses over windows equal losses over prefixes, padding is
inert, scores are as RecBole's evaluator takes them, every switch runs, and settings that do not go together are
refused."""

import pytest
import torch

from recbole_contrec.tokenizer import MaskedVQ, SigmaVAE, WholeVector
from tests.helpers.models import NoNoise
from tests.helpers.options import STILL_OF

T5 = ("--backbone=t5", "--sampled_prefixes=1000")  # all targets of these windows

UNRANKED = ("--ranking_weight=0", "--repeat_bias=False", "--train_item_vectors=False", "--item_vectors_init=vectors")

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
SWITCHED = {
    "ContRec": [
        ("--tokenizer=plain",),
        ("--tokenizer=deterministic", "--token_noise=False"),
        ("--item_tokens=1",),
        ("--noise_levels=10", "--sampling_steps=5", "--num_samples=3", "--ddim_eta=1.0"),
        ("--guidance=2", "--condition_dropout=0.1"),
        ("--similarity=inner", "--item_vectors_init=vectors"),
        ("--train_item_vectors=False", "--item_vectors_init=vectors"),
        ("--id_embedding=False", "--train_item_tokens=True"),
        UNRANKED,
        (*UNRANKED, "--similarity=inner", "--user_token_dropout=0"),
        ("--prediction=noise",),
        ("--prediction=v", "--noise_schedule=exp"),
        ("--ranking_negatives=20",),
        ("--dispersive_weight=0.25", "--dispersive_loss=covariance"),
        ("--item_vectors=lightgcn", "--lightgcn_epochs=1"),
        ("--tokenizer=none", "--item_tokens=1", "--user_tokens=1", "--vector_size=16", "--token_size=16"),
        ("--objective=regression",),
        ("--user_tokens=0",),
        ("--window_context=3",),
        ("--MAX_ITEM_LIST_LENGTH=4", "--window_shift=False"),
        ("--item_vectors=svd+text",),
        ("--item_vectors=text",),
        SPEAKING,
        (*SPEAKING, "--prompt_text=words", "--answer_template={category}: {title}"),
        (*SPEAKING, "--condition_on=answer"),
    ],
    "DeftRec": [
        ("--contrastive_weight=0",),
        ("--token_mask_ratio=0",),
        ("--item_tokens=1", "--user_tokens=1"),
        ("--objective=regression",),
        ("--objective=regression", *UNRANKED, "--contrastive_weight=0"),
        ("--condition_pooling=mean",),
        ("--prediction=x0",),
        ("--prediction=v", "--noise_schedule=linear"),
        ("--negative_source=popularity",),
        ("--negative_source=batch", "--negative_vector=apart"),
        ("--negative_noise=independent",),
        ("--contrastive_loss=hinge", "--contrastive_margin=0.5"),
        ("--negatives_per_target=1", "--noise_draws=3"),
        ("--regression_weight=0",),
        ("--tokenizer=sigma", "--token_noise=True"),
        ("--guidance=2", "--condition_dropout=0.1"),
        UNRANKED,
        ("--dispersive_weight=0.1",),
        ("--user_tokens=0",),
        ("--ranking_negatives=20",),
        ("--window_context=3",),
        (*SPEAKING, "--prompt_text=bag"),
        (*SPEAKING, "--condition_on=answer", "--condition_pooling=mean"),
    ],
    "TokenRec": [
        ("--codebook_size=4", "--code_gradient=rotation", "--dead_code_threshold=0"),
        ("--num_codebooks=1", "--num_user_codebooks=2"),
        ("--item_positions=each",),
        ("--similarity=inner", "--item_vectors_init=vectors"),
        ("--id_embedding=False",),
        ("--train_item_vectors=False", "--item_vectors_init=vectors"),
        ("--ranking_negatives=20",),
        ("--window_context=3",),
        ("--pairwise_weight=1", "--pairwise_margin=0.1"),
        ("--num_user_codebooks=0",),
        ("--vector_size=12", "--projection_size=8"),
        (
            "--backbone=t5",
            "--item_positions=each",
            "--shuffle_history=True",
            "--decoder_query_tokens=2",
            "--sampled_prefixes=0",
        ),
        ("--instructions=[]", "--held_out_instruction=~"),
        ("--first_n=6", "--item_vectors=lightgcn", "--lightgcn_epochs=1"),
    ],
    "TokenRec-beam": [("--self_improve=True", "--alignment_items=5", "--refine_every=1")],
    "TIGER": [
        ("--semantic_ids=rkmeans",),
        ("--semantic_ids=pq",),
        ("--semantic_ids=clusters",),
        ("--semantic_ids=random",),
        ("--num_codebooks=1", "--codebook_size=32"),
        ("--codebook_size=~",),
        ("--user_buckets=5",),
        ("--label_smoothing=0.1",),
        ("--generate_seen=True",),
        ("--generate_seen=False",),
        ("--mask_seen=True",),
        ("--window_context=3",),
        ("--item_vectors=text",),
        ("--item_vectors=svd+text", "--first_n=6"),
        ("--dead_code_threshold=0",),
        ("--backbone=t5", "--user_buckets=5", "--sampled_prefixes=0"),
        ("--backbone=t5", "--semantic_ids=clusters"),
    ],
    "SIIT-states": [("--backbone=t5",), ("--semantic_ids=clusters", "--item_vectors=text"), ("--alignment_weight=0",)],
    "SIIT": [("--backbone=t5",), ("--item_descriptions=text", "--refinement=random")],
}
REFUSED = {
    "ContRec": [
        (("--n_heads=3",), "n_heads=3 must divide hidden_size=16"),
        (("--sampling_steps=500",), "noise_levels=200"),
        (("--guidance=2.0",), "condition_dropout"),
        (("--item_vectors=lightgnc",), "did you mean lightgcn"),
        (("--ranking_weight=0",), "set repeat_bias=False"),
        (("--ranking_weight=0", "--repeat_bias=False"), "set train_item_vectors=False"),
        (("--train_item_vectors=False", "--item_vectors_init=random"), "item_vectors_init=vectors"),
        (("--prediction=v", "--noisy_skip=False"), "prediction x0 alone"),
        (("--objective=regression", "--noise_draws=2"), "leave noise_draws at 1, not 2"),
        (("--tokenizer=none", "--item_tokens=2"), "set item_tokens=1, not 2"),
        (("--tokenizer=none", "--item_tokens=1", "--user_tokens=3"), "set user_tokens=1, not 3"),
        (("--tokenizer=none", "--item_tokens=1", "--user_tokens=0", "--token_size=5"), "set token_size="),
        (("--item_vectors=missing.npy",), "neither a file nor one of svd, lightgcn"),
        (("--item_vectors=svd+text", "--vector_size=15"), "share vector_size=15 evenly"),
        (("--item_vectors=svd+svd",), "different parts"),
        (("--text_weight=1",), "needs answers"),
        (("--label_smoothing=0.1", "--ranking_negatives=5"), "ranking_negatives=0"),
        (("--condition_on=answer",), "needs answers: set --answer_weight=0.1, or --condition_on=history"),
        (
            ("--condition_on=answer", "--text_bonus=0.1"),
            "condition_on=answer, text_bonus=0.1 need answers: .* or --condition_on=history --text_bonus=0",
        ),
        (("--prompt_text=bag", "--item_template={titel}"), "did you mean title"),
        (("--answer_weight=1", "--answer_template=film"), "names no part of an item"),
        (("--answer_weight=1", "--answer_template={category"), "is no template"),
        (("--answer_weight=1", "--category_field=gnre"), "did you mean genre"),
        (("--prompt_text=bag", "--vocabulary_size=200"), "vocabulary_size"),
    ],
    "DeftRec": [
        (("--negative_sorce=batch",), "did you mean negative_source"),
        (("--negative_source=popular",), "popularity"),
        (("--contrastive_scale=0",), "contrastive_scale"),
        (("--negatives_per_target=0",), "negatives_per_target"),
        (("--condition_pooling=first",), "condition"),
        (("--sampling_steps=500",), "noise_levels=200"),
        (
            ("--objective=regression", "--sampling_steps=5"),
            "regression draws no noise: leave sampling_steps at 1, not 5",
        ),
        (("--objective=regression", "--num_samples=2"), "leave num_samples at 1, not 2"),
        (("--objective=regression", "--negative_noise=independent"), "leave negative_noise at same, not independent"),
    ],
    "TokenRec": [
        (("--n_heads=3",), "n_heads=3 must divide hidden_size=16"),
        (("--codebook_size=50",), "more codes than the table has rows"),
        (("--ranking_weight=0", "--repeat_bias=False"), "nothing would be learned"),
        (("--ranking_weight=0", "--pairwise_weight=1"), "repeat_bias"),
        (("--shuffle_history=True",), "backbone=t5"),
        (("--pairwise_weight=1", "--similarity=inner"), "cannot retrieve by it"),
        (("--train_item_vectors=False", "--item_vectors_init=random"), "item_vectors_init=vectors"),
        (("--held_out_instruction=buy this",), "the words buy"),
        (("--instructions=[]", "--held_out_instruction=what now"), "held_out_instruction"),
        (("--item_vectors=lightgnc",), "did you mean lightgcn"),
        (("--backbone=bert",), "one of causal, t5"),
        (("--first_n=3",), "at least 4"),
        (("--codebook_sise=3",), "did you mean codebook_size"),
    ],
    "TIGER": [
        (("--n_heads=3",), "n_heads=3 must divide hidden_size=16"),
        (("--semantic_ids=rqkmeans",), "semantic_ids"),
        (("--n_heads=3", "--backbone=t5"), "n_heads=3 must divide hidden_size=16"),
        (("--item_vectors=lightgnc",), "did you mean lightgcn"),
        (("--beam_size=0",), "beam_size"),
        (("--user_bucket=3",), "did you mean user_buckets"),
        (("--codebook_size=1",), "codebook_size"),
    ],
    "SIIT-states": [
        (("--refine_every=0",), "refine_every"),
        (("--refinement=none",), "one of model, random"),
        (("--refine_from=words",), "one of histories, descriptions"),
        (("--refine_margin=1",), "not for refine_from=histories"),
    ],
    "SIIT": [
        (("--refine_groups=3",), "refine_groups=3 must divide refine_candidates=8"),
        (("--refine_assignment=fair",), "one of optimal, greedy"),
    ],
}


FROZEN = {"items.table.weight"}  # beside the tokenizers


def each(table):
    """Parameters (model, case) of a table model -> cases."""
    return [
        pytest.param(model, case, id=f"{model} {' '.join(map(str, case))}")
        for model, cases in table.items()
        for case in cases
    ]


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


def untrained(model):
    """Parameters that shall train and get no gradient."""
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.numel() and (p.grad is None or not p.grad.any())
    ]


def stirred(model):
    """The model in training with what starts at zero, and so keeps others from learning at first, off zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    return model.train()


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


# settings


@pytest.mark.parametrize("model, arguments", each(SWITCHED))
def test_every_switch_runs(staged, model, arguments):
    """One training step and one ranking with every part switched."""
    loaded = staged(model, *arguments)
    recommender = stirred(loaded.model)
    loss = sum(recommender.calculate_loss(next(iter(loaded.data.train))))
    loss.backward()
    assert torch.isfinite(loss) and not untrained(recommender)
    scores = recommender.eval().full_sort_predict(next(iter(loaded.data.test))[0])
    assert torch.isfinite(scores).all() and (scores != scores[:, :1]).any()


@pytest.mark.parametrize("model, case", each(REFUSED))
def test_settings_that_do_not_go_together_leave_nothing_behind(run_tiny, workplace, model, case):
    from recbole_contrec.errors import UserError

    arguments, words = case
    with pytest.raises(UserError, match=words):
        run_tiny(model, *arguments)
    assert not (workplace / "log").exists() and not (workplace / "saved").exists()
