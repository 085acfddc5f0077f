"""A small data set of RecBole's atomic files, and the one way tests build configurations and runs."""

import logging
import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the models of the tests are too small to share

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
    "--head_width=16",
    "--n_layers=1",
    "--inner_size=32",
    "--tokenizer_epochs=3",
    "--tokenizer_hidden_size=16",
]
TINY_TOKENREC = [argument for argument in TINY_CONTREC if not argument.startswith("--head_width")]
TINY_TIGER = [argument for argument in TINY_TOKENREC if not argument.startswith("--tokenizer_epochs")]
TINY_TIGER += [
    "--tokenizer_epochs=20",
    "--item_tokens=2",
    "--codes=16",
    "--beam_size=20",
    "--n_heads=2",
    "--backbone=causal",
    "--identifiers=rqvae",
    "--item_vectors=svd",
    "--user_buckets=0",
    "--label_smoothing=0",
    "--generate_seen=~",
    "--code_vectors_init=random",
]
TINY_SIIT = TINY_TIGER + [
    "--alignment_items=32",
    "--alignment_weight=0.1",
    "--refine_every=1",
    "--refine_rounds=2",
    "--refine_from=histories",
    "--refine_whitening=0.5",
    "--refinement=model",
    "--refine_tolerance=~",
]
TINY_SIIT_PAPER = [
    argument for argument in TINY_SIIT if not argument.startswith(("--refine_from", "--refine_whitening"))
]
TINY_SIIT_PAPER += [
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
    "SIIT": TINY_SIIT,
    "SIIT-paper": TINY_SIIT_PAPER,
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
    "--wordings=['what comes next']",
    "--held_out_wording=~",
)
STILL_OF = {
    "ContRec": STILL_CONTREC,
    "DeftRec": (*STILL_CONTREC, "--contrastive_weight=0"),
    "TokenRec": STILL_TOKENREC,
    "TokenRec-beam": STILL_TOKENREC,
    "TIGER": ("--dropout=0", "--window_context=0"),
    "SIIT": ("--dropout=0", "--window_context=0", "--alignment_weight=0", "--refine_rounds=0"),
}

T5_SENTENCES = """the interaction history shows that the user preference could be what comes next after these items which one
of two does somebody like"""


class NoNoise:
    """The head's estimate without its draw of noise, so that two ways to the same loss can be compared; nothing for a
    model without a head."""

    def __init__(self, model):
        self.head = getattr(model, "head", None)

    def __enter__(self):
        if self.head is not None:
            self.estimate = self.head.estimate
            self.head.estimate = self._estimate

    def _estimate(self, condition):
        self.head.eval()
        try:
            return self.estimate(condition)
        finally:
            self.head.train()

    def __exit__(self, *_):
        if self.head is not None:
            self.head.estimate = self.estimate


@torch.no_grad()
def exact_scores(model, rows):
    """Log-probabilities of the whole catalogue [B, N] of a model that writes codes, one teacher-forced pass an item and none
    of what a search needs; -inf for items without codes."""
    codes, none = model.item_codes.codes, model.item_codes.unknown_code
    scores = torch.full((len(rows), len(codes)), -torch.inf, dtype=torch.double)
    for row, length in enumerate(rows["item_length"].tolist()):
        history, user = rows["item_id_list"][row, :length], rows["user_id"][row : row + 1]
        prompt = model._read(history[None], user).vectors
        for item in (codes[:, 0] < none).nonzero().squeeze(1).tolist():
            if hasattr(model.backbone, "decode"):
                own = model.item_codes(torch.tensor([item]))[:, :-1]
                states = model.backbone.decode(*model.backbone.encode(prompt), own)[0]
            else:
                states = model.code_states(torch.cat([history, torch.tensor([item])])[None], user)[0, -1]
            scores[row, item] = sum(
                head(states[level]).log_softmax(0)[codes[item, level]] for level, head in enumerate(model.code_heads)
            )
    return scores


def changed(defaults, arguments):
    """Arguments over default ones."""
    return list({**{argument.split("=")[0]: argument for argument in (*defaults, *arguments)}}.values())


def write_atomic_files(folder, name="tiny", n_users=40, n_items=60, seed=0, texts=True):
    """Histories of 3 to 24 items with structure: everybody walks through the items in steps of one or two."""
    rng = np.random.default_rng(seed)
    path = folder / name
    path.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(n_users):
        item = rng.integers(n_items)
        for time in range(rng.integers(3, 25)):
            item = (item + rng.integers(1, 3)) % n_items
            rows.append(f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{time}")
    (path / f"{name}.inter").write_text("\n".join(rows) + "\n")
    if texts:
        rows = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
        rows += [f"i{item}\tTitle of {item}\t{'odd' if item % 2 else 'even'} kind" for item in range(n_items + 5)]
        (path / f"{name}.item").write_text("\n".join(rows) + "\n")
    return path


def write_t5(path, kind="t5", words=True, **config):
    """A folder of a small T5 with random weights whose words are those of some sentences; without ``words`` it has no
    tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    known = ["<pad>", "</s>", "<unk>", *sorted({*T5_SENTENCES.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    if words:
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ).save_pretrained(path)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(
        AutoConfig.for_model(
            kind,
            **{
                "vocab_size": len(known) + 4,
                "d_model": 24,
                "d_kv": 8,
                "d_ff": 32,
                "num_layers": 2,
                "num_heads": 2,
                "decoder_start_token_id": 0,
                **config,
            },
        )
    )
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=3.0 if name == "shared.weight" else 0.3)  # its words are large
    model.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def nothing_of_another_test():
    """The same random numbers whatever ran before, and no handlers of RecBole's: a run leaves them behind, and they write to the screen
    of the test that is over."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    for logger in (logging.getLogger(), logging.getLogger("recbole_contrec")):
        logger.handlers = [handler for handler in logger.handlers if type(handler).__module__.startswith("_pytest")]
    ours = logging.getLogger("recbole_contrec")
    ours.propagate = True
    ours.setLevel(logging.NOTSET)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory: runs write logs and checkpoints below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(workplace):
    """The folder for ``--data_path`` with the data set ``tiny`` in it."""
    write_atomic_files(workplace / "data")
    return workplace / "data"


@pytest.fixture
def config_of(tiny):
    """A function (model, *arguments) -> Config on the tiny data set."""

    def build(model="ContRec", *arguments):
        from recbole_contrec.settings.config import Config

        defaults = [*TINY_OF.get(model, TINY), f"--data_path={tiny}"]
        return Config(model, "tiny", arguments=changed(defaults, arguments))

    return build


@pytest.fixture
def assembled(config_of):
    """A function (model, *arguments) -> LoadedRun: data, model and trainer, not trained yet."""

    def build(model="ContRec", *arguments):
        from recbole_contrec.data.loading import load_data
        from recbole_contrec.quick_start import assemble

        config = config_of(model, *arguments)
        return assemble(config, load_data(config))

    return build


@pytest.fixture
def staged(assembled):
    """A function (model, *arguments) -> LoadedRun whose stages are done: tokens are there, nothing else is trained."""

    def build(model="ContRec", *arguments):
        loaded = assembled(model, *arguments)
        loaded.trainer._run_stages(loaded.data.train, False)
        return loaded

    return build


@pytest.fixture
def run_tiny(tiny):
    """A function (model, *arguments) -> result of a run on the tiny data set."""

    def start(model="ContRec", *arguments, **options):
        from recbole_contrec.quick_start import run

        defaults = [*TINY_OF.get(model, TINY), f"--data_path={tiny}"]
        return run(model, "tiny", arguments=changed(defaults, arguments), **options)

    return start


def low_rank(n=400, d=16, rank=6, seed=0):
    """A table of standardised vectors [n, d] that lie in few dimensions; row 0 is the padding."""
    from recbole_contrec.tokenizer import standardise

    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rank, generator=g) @ torch.randn(rank, d, generator=g)
    x[0] = 0
    return standardise(x)


def moved_by_training(loaded, steps):
    """Names of the parameters that some steps at a high rate change."""
    model, optimiser = loaded.model.train(), loaded.trainer.optimizer
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimiser.param_groups:
        group["lr"] = 1e-2
    for batch, _ in zip(loaded.data.train, range(steps)):
        optimiser.zero_grad()
        sum(model.calculate_loss(batch)).backward()
        optimiser.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.fixture
def executed(workplace, monkeypatch):
    """Runs of benchmarks happen in this process, where the libraries are loaded already; names of those that did, and what
    lay in their working folders as arrays before they started."""
    import compare
    import runs

    names, arrays = [], {}

    def execute(run, data_path, on_epoch):
        names.append(run.name)
        run.work.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(run.work)
        arrays.update({run.name: np.load(path) for path in run.work.glob("*.npy")})
        try:
            runs._child(
                [
                    "--work",
                    str(run.work),
                    "--",
                    f"--model={run.model}",
                    f"--dataset={run.dataset}",
                    f"--seed={run.seed}",
                    f"--data_path={data_path}",
                    *run.settings,
                ]
            )
        finally:
            monkeypatch.chdir(workplace)
        runs._keep(run)

    monkeypatch.setattr(compare, "execute", execute)
    return names, arrays


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """The folder of a Hugging Face cache that holds nothing yet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    return tmp_path / "hub"
