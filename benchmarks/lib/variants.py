"""
benchmarks.lib.variants
#######################
The variants that :mod:`benchmarks.ablate` compares: for every model its parts, one changed at a time.
"""

from typing import NamedTuple

RANDOM_VECTORS = "random_vectors.npy"  # in the working folder of a run, where it is found without a path of the machine


class Variant(NamedTuple):
    """A row of the table: what is changed against the shipped settings, and what that means."""

    name: str
    meaning: str
    settings: tuple[str, ...] = ()
    model: str | None = None  # another than the one whose parts are compared: a control


SHIPPED = Variant("shipped", "the settings of the model's YAML")  # what all others are compared with

CONTREC = (
    SHIPPED,
    # item and user vectors
    Variant("vectors-lightgcn", "tokens from LightGCN vectors instead of an SVD", ("item_vectors=lightgcn",)),
    Variant("vectors-random", "control: tokens from random vectors", (f"item_vectors={RANDOM_VECTORS}",)),
    Variant(
        "retrieval-from-random", "item vectors of the retrieval start at random numbers", ("item_vectors_init=random",)
    ),
    Variant("retrieval-frozen", "item vectors of the retrieval stay at the SVD", ("train_item_vectors=False",)),
    # tokenizer
    Variant(
        "tokenizer-none",
        "no tokenizer: the vector itself is the one token of a user and an item",
        ("tokenizer=none", "item_tokens=1", "user_tokens=1"),
    ),
    Variant("tokenizer-plain", "a VAE with learned variance, its means read without noise", ("tokenizer=plain",)),
    Variant("tokenizer-deterministic", "no noise in the tokenizer", ("tokenizer=deterministic",)),
    Variant("item-tokens-1", "one token an item, K = 1 instead of 2", ("item_tokens=1",)),
    Variant("item-tokens-4", "four tokens an item, K = 4 instead of 2", ("item_tokens=4",)),
    Variant("token-mask-0", "vectors not masked in the tokenizer's training", ("token_mask_ratio=0.0",)),
    Variant("token-mask-.3", "three times the mask", ("token_mask_ratio=0.3",)),
    # what the language model reads
    Variant("token-noise-off", "tokens without noise while the recommender trains", ("token_noise=False",)),
    Variant("user-tokens-0", "a prompt without the user", ("user_tokens=0",)),
    Variant("user-dropout-0", "user tokens never replaced in training", ("user_token_dropout=0.0",)),
    Variant("id-embedding-off", "items read as tokens alone, without their learned vector", ("id_embedding=False",)),
    Variant("history-20", "histories of 20 items", ("MAX_ITEM_LIST_LENGTH=20",)),
    Variant("history-50", "histories of 50 items", ("MAX_ITEM_LIST_LENGTH=50",)),
    Variant("history-400", "histories of 400 items", ("MAX_ITEM_LIST_LENGTH=400",)),
    Variant(
        "window-context-50", "later windows of a long history begin with 50 items of context", ("window_context=50",)
    ),
    Variant("window-shift-off", "long histories cut at the same places in every epoch", ("window_shift=False",)),
    # losses and head
    Variant("regression", "plain regression of the vector instead of denoising", ("objective=regression",)),
    Variant("ranking-only", "no denoising: a plain ranking head", ("regression_weight=0.0", "dispersive_weight=0.0")),
    # Without a ranking loss nothing trains the item vectors as targets nor the repeat bias, so there is none, and the
    # vectors stay where they start: at the SVD.
    Variant(
        "diffusion-only",
        "no ranking loss and no repeat bias: 16 samples of 20 steps, item vectors at the SVD",
        (
            "ranking_weight=0.0",
            "repeat_bias=False",
            "train_item_vectors=False",
            "sampling_steps=20",
            "num_samples=16",
        ),
    ),
    Variant("dispersive-0", "no dispersive loss", ("dispersive_weight=0.0",)),
    Variant("dispersive-.05", "half the dispersive loss", ("dispersive_weight=0.05",)),
    Variant("dispersive-.5", "five times the dispersive loss", ("dispersive_weight=0.5",)),
    Variant("dispersive-cosine", "InfoNCE over cosines", ("dispersive_loss=infonce_cosine",)),
    Variant("dispersive-hinge", "hinge instead of InfoNCE", ("dispersive_loss=hinge",)),
    Variant("dispersive-covariance", "covariance instead of InfoNCE", ("dispersive_loss=covariance",)),
    # retrieval and training
    Variant("repeat-bias-off", "repeats left to the vectors", ("repeat_bias=False",)),
    Variant("temperature-.02", "the learned temperature starts sharper than .05", ("temperature=0.02",)),
    Variant("temperature-.2", "the learned temperature starts flatter than .05", ("temperature=0.2",)),
    Variant("ema-off", "the last weights instead of their moving average", ("ema_decay=0.0",)),
    # controls
    Variant("SASRecAll", "control: RecBole's SASRec on the same windows", model="SASRecAll"),
    Variant("SASRecAll-repeat-bias", "the same with the repeat bias", ("repeat_bias=True",), model="SASRecAll"),
    Variant("SASRecAll-svd", "the same, its embeddings started at the SVD", model="SASRecAll-svd"),
)

DEFTREC = (
    SHIPPED,
    # negatives
    Variant("negatives-off", "no contrast with negatives", ("contrastive_weight=0.0",)),
    Variant("negatives-apart", "every negative on its own instead of their mean", ("negative_vector=apart",)),
    Variant("negatives-popularity", "negatives drawn by popularity", ("negative_source=popularity",)),
    Variant("negatives-batch", "negatives from the other targets of the batch", ("negative_source=batch",)),
    Variant("contrast-hinge", "hinge instead of BPR", ("contrastive_loss=hinge",)),
    Variant("contrast-2", "four times the weight of the contrast", ("contrastive_weight=2.0",)),
    # tokens
    Variant("token-mask-0", "vectors not masked in the tokenizer's training", ("token_mask_ratio=0.0",)),
    Variant("tokens-1", "one token a user and an item, K = 1 instead of 2", ("item_tokens=1", "user_tokens=1")),
    Variant("tokenizer-sigma", "ContRec's tokenizer", ("tokenizer=sigma", "token_noise=True")),
    Variant("user-tokens-0", "a prompt without the user", ("user_tokens=0",)),
    # condition and head
    Variant(
        "condition-pooling-mean", "conditioned on the mean of the states, as in the paper", ("condition_pooling=mean",)
    ),
    Variant("regression", "plain regression instead of denoising", ("objective=regression",)),
    Variant("prediction-x0", "the head predicts the vector instead of the noise", ("prediction=x0",)),
    Variant("dispersive-.1", "ContRec's dispersive loss as well", ("dispersive_weight=0.1",)),
    Variant("ranking-only", "neither denoising nor contrast", ("regression_weight=0.0", "contrastive_weight=0.0")),
    Variant("repeat-bias-off", "repeats left to the vectors", ("repeat_bias=False",)),
)

TOKENREC = (
    SHIPPED,
    # tokenizer
    Variant("tokens-1", "one code a user and an item, K = 1 instead of 3", ("num_codebooks=1", "num_user_codebooks=1")),
    Variant("token-mask-0", "vectors not masked in the tokenizer's training", ("token_mask_ratio=0.0",)),
    Variant("codes-nearest", "nearest codes, which several items may share", ("distinct_codes=False",)),
    Variant("restart-off", "no cure for codes that are not used", ("dead_code_threshold=0",)),
    Variant("rotation", "the rotation trick instead of the straight-through gradient", ("code_gradient=rotation",)),
    # what the language model reads and answers
    Variant("id-embedding-off", "items read as codes alone, without their learned vector", ("id_embedding=False",)),
    Variant("user-tokens-0", "a prompt without the user", ("num_user_codebooks=0",)),
    Variant("positions-each", "one position for each code", ("item_positions=each",)),
    Variant("instructions-off", "no instruction", ("instructions=[]", "held_out_instruction=~")),
    Variant("backbone-t5", "a compact T5, which answers once a history", ("backbone=t5",)),
    # losses
    Variant("pairwise", "the pairwise cosine loss as well", ("pairwise_weight=1.0",)),
    Variant("repeat-bias-off", "repeats left to the vectors", ("repeat_bias=False",)),
)

ABLATIONS = {"ContRec": CONTREC, "DeftRec": DEFTREC, "TokenRec": TOKENREC}
