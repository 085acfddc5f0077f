"""Data sets and language models of the tests: those that they write, and where the others lie."""

from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]  # the checkout
STORIES = ROOT / "tests" / "files" / "stories260k"  # a trained language model of a quarter of a million parameters
T5_SENTENCES = """the interaction history shows that the user preference could be what comes next after these items
which one of two does somebody like"""


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
