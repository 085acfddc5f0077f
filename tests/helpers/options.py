"""Arguments with which every model trains in a second or two, and those that leave nothing to chance in its forward
pass."""

TINY = [
    "--epochs=2",
    "--MAX_ITEM_LIST_LENGTH=10",
    "--train_batch_size=256",
    "--show_progress=False",
    "--use_gpu=False",
    "--stopping_step=10",
]
TINY_CONTREC = TINY + [
    "--hidden_size=16",
    "--vector_size=16",
    "--token_size=16",
    "--denoiser_width=16",
    "--n_layers=1",
    "--inner_size=32",
    "--tokenizer_epochs=3",
    "--tokenizer_hidden_size=16",
]
TINY_TOKENREC = [argument for argument in TINY_CONTREC if not argument.startswith("--denoiser_width")]
TINY_TIGER = [argument for argument in TINY_TOKENREC if not argument.startswith("--tokenizer_epochs")]
TINY_TIGER += [
    "--tokenizer_epochs=20",
    "--num_codebooks=2",
    "--codebook_size=16",
    "--beam_size=20",
    "--n_heads=2",
    "--backbone=causal",
    "--semantic_ids=rqvae",
    "--item_vectors=svd",
    "--user_buckets=0",
    "--label_smoothing=0",
    "--generate_seen=~",
    "--code_vectors_init=random",
]
TINY_SIIT_STATES = TINY_TIGER + [
    "--alignment_items=32",
    "--alignment_weight=0.1",
    "--refine_every=1",
    "--refine_rounds=2",
    "--refine_from=histories",
    "--refine_whitening=0.5",
    "--refinement=model",
    "--refine_tolerance=~",
]
TINY_SIIT = [
    argument for argument in TINY_SIIT_STATES if not argument.startswith(("--refine_from", "--refine_whitening"))
]
TINY_SIIT += [
    "--refine_candidates=8",
    "--refine_groups=2",
    "--refine_diversity=1",
    "--refine_margin=0",
    "--refine_assignment=optimal",
    "--refine_crowding=False",
]
TINY_OF = {
    **dict.fromkeys(("ContRec", "ContRec-paper", "DeftRec", "DeftRec-paper"), TINY_CONTREC),
    **dict.fromkeys(("TokenRec", "TokenRec-paper", "TokenRec-beam"), TINY_TOKENREC),
    "TIGER": TINY_TIGER,
    "SIIT-states": TINY_SIIT_STATES,
    "SIIT": TINY_SIIT,
    "SIIT-paper": TINY_SIIT,
}

# Nothing drawn in the forward pass but the noise of a head, for which there is NoNoise.
STILL_CONTREC = (
    "--dropout=0",
    "--token_noise=False",
    "--user_token_dropout=0",
    "--window_context=0",
    "--regression_weight=0",
)
STILL_TOKENREC = (
    "--dropout=0",
    "--user_token_dropout=0",
    "--window_context=0",
    "--instructions=['what comes next']",
    "--held_out_instruction=~",
)
STILL_OF = {
    "ContRec": STILL_CONTREC,
    "DeftRec": (*STILL_CONTREC, "--contrastive_weight=0"),
    "TokenRec": STILL_TOKENREC,
    "TokenRec-beam": STILL_TOKENREC,
    "TIGER": ("--dropout=0", "--window_context=0"),
    "SIIT-states": ("--dropout=0", "--window_context=0", "--alignment_weight=0", "--refine_rounds=0"),
}


def changed(defaults, arguments):
    """Arguments over default ones."""
    return list({**{argument.split("=")[0]: argument for argument in (*defaults, *arguments)}}.values())
