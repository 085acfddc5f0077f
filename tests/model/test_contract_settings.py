"""Settings of every generative model of this package: every switch runs, and what does not go together is refused."""

import pytest
import torch

from tests.helpers.models import each, stirred, untrained

UNRANKED = ("--ranking_weight=0", "--repeat_bias=False", "--train_item_vectors=False", "--item_vectors_init=vectors")

SPEAKING = ("--answer_weight=0.1", "--text_weight=0.3", "--text_bonus=0.2", "--vocabulary_size=300")
SWITCHED = {
    "SASRecAll": [
        ("--ranking_negatives=20",),
        ("--ranking_negatives=20", "--ranking_negatives_alpha=0.75", "--repeat_bias=True"),
    ],
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
        ("--ranking_negatives=20", "--ranking_negatives_alpha=0.75"),
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
        ("--ranking_negatives=20", "--ranking_negatives_alpha=1"),
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
