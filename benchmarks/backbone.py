"""
benchmarks.backbone
###################
What training a language model of real size costs: all positions in one pass against a row for every prefix.

    python benchmarks/backbone.py --size=llama-100m --dataset=ml-100k
    python benchmarks/backbone.py --size=llama-3.2-1b --llm_dtype=bfloat16 --lora_rank=16 --batches=20
    python benchmarks/backbone.py --llm=models/smollm2 --name=smollm2-6 --llm_layers=6 --only_training

The model has random weights and the shape that ``--size`` names, and nothing is downloaded; or it is the pretrained one
that ``--llm`` names. ContRec reads titles and tokens of the history through it, and LoRA trains it; ``--size=compact``
is its own decoder, without LoRA. Both ways train the
same model on the same targets: windows of whole histories as ours does, and RecBole's rows, of which each holds one
prefix and one target. Written to ``OUTPUT/DATASET-backbone/NAME.json``. Further ``--key=value`` settings go to the
model.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.lib.command_line import Parser, name_of_a_folder, number, refuse_odd_settings, results_folder
from benchmarks.lib.flops import count_training_flops, matrix_rate
from benchmarks.lib.measuring import MIB, median_seconds, temporary_workplace
from benchmarks.lib.released import ReleasedScheme
from benchmarks.lib.runs import RESULTS

COMPACT = "compact"
# Shapes of public models (their configuration files on the Hugging Face Hub), and smaller ones of the same kind.
SIZES = {
    "llama-10m": dict(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=4
    ),
    "llama-100m": dict(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=12
    ),
    "qwen2.5-0.5b": dict(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2
    ),
    "llama-3.2-1b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8
    ),
}
TOP = 10  # items of a list
SETTINGS = {
    "MAX_ITEM_LIST_LENGTH": 50,
    "prompt_text": "words",
    "item_text_max_tokens": 8,
    "lora_rank": 16,
    "lora_alpha": 32.0,
    "answer_weight": 0.1,
    "answer_max_tokens": 16,
    "train_batch_size": 256,
    "show_progress": False,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write and print; 0, or 2 if a setting cannot be."""
    from recbole_contrec import UserError
    from recbole_contrec.training.results import write_json

    given, settings = _parse(arguments)
    path = given.output.resolve() / f"{given.dataset}-backbone" / f"{given.name}.json"
    try:
        with tempfile.TemporaryDirectory() as folder, temporary_workplace():
            if given.llm:
                settings = [*settings, f"--llm={given.llm}"]
            elif given.size != COMPACT:
                write_random_model(
                    given.size, Path(given.tokenizer).resolve() if given.tokenizer else None, Path(folder)
                )
                settings = [*settings, f"--llm={folder}"]
            record = measure(given, settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(report(record), f"written: {path}", sep="\n")
    return 0


def folder_or_name(llm: str) -> str:
    """A folder by its whole path, since the work is done in another one; or a name on the Hub."""
    return str(Path(llm).resolve()) if Path(llm).is_dir() else llm


def write_random_model(size: str, tokenizer: Path | None, folder: Path) -> None:
    """A Llama of random weights as transformers keeps models; its words are the bytes, or those of a tokenizer's
    folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if tokenizer is not None:
        words = AutoTokenizer.from_pretrained(tokenizer)
    else:
        alphabet = {
            letter: number for number, letter in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
        }
        built = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
        built.pre_tokenizer, built.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        words = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=8192, **SIZES[size])
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


def measure(given: argparse.Namespace, settings: list[str]) -> dict[str, Any]:
    """Both ways of training and what surrounds them, JSON-like."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.environment import peak_gpu_memory, peak_memory
    from recbole_contrec.quick_start import assemble
    from recbole_contrec.settings.config import Config
    from recbole_contrec.training.card import protocol_card

    own_settings = {
        key: value for key, value in (setting.lstrip("-").split("=", 1) for setting in settings) if key != "llm"
    }
    data = [f"--data_path={Path(given.data_path).resolve()}"] if given.data_path else []
    own = {argument.split("=")[0]: argument for argument in settings}
    shared = {key: value for key, value in SETTINGS.items() if given.size != COMPACT or not key.startswith("lora")}
    own = {**{f"--{key}": f"--{key}={value}" for key, value in shared.items()}, **own}
    config = Config("ContRec", given.dataset, arguments=[*own.values(), *data])
    loaded = assemble(config, load_data(config))
    loaded.trainer.run_stages(loaded.data.train)
    ceiling = matrix_rate((1024, 2048)) if config["device"].type == "cpu" else None
    windows = time_steps(loaded, loaded.data.train, given.batches)
    record = {
        "size": given.size,
        "settings": own_settings,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "trained": sum(p.numel() for p in loaded.model.parameters() if p.requires_grad),
        "threads": torch.get_num_threads(),
        "windows": windows,
        "training_memory_mib": round(peak_memory() / MIB),
    }
    if ceiling is not None:
        record["matrix_gflops"] = round(ceiling.gflops, 1)
        record["share_of_matrix_rate"] = windows["gflops"] / ceiling.gflops
    if not given.only_training:
        rows = _rows_of_prefixes(given, data, own["--MAX_ITEM_LIST_LENGTH"])
        record["prefixes"] = prefixes = time_steps(loaded, rows, given.batches)
        record["times_faster"] = windows["targets_a_second"] / prefixes["targets_a_second"]
        record["inference"] = inference(loaded, given.users, given.one_by_one)
    record["peak_memory_mib"] = round(peak_memory() / MIB)
    record["peak_gpu_memory_mib"] = peak_gpu_memory(config["device"])
    card = protocol_card(config, loaded.data, loaded.trainer)
    return {**record, **{key: card[key] for key in ("dataset", "max_history", "commit", "device", "versions", "seed")}}


def _rows_of_prefixes(given: argparse.Namespace, data: list[str], longest: str) -> Iterable:
    """RecBole's own training rows: one prefix and one target each."""
    from recbole.data import create_dataset, data_preparation

    from recbole_contrec.settings.config import Config

    rows = ["--train_neg_sample_args=~", f"--train_batch_size={given.rows}", "--show_progress=False"]
    config = Config("SASRec", given.dataset, arguments=[*data, longest, *rows])
    return data_preparation(config, create_dataset(config))[0]


def time_steps(loaded, batches: Iterable, count: int) -> dict[str, Any]:
    """Some training steps after one to warm up.

    Returns:
        dict: a second: targets, real positions of prompts and answers; GFLOP/s; and the share of padding among
            positions.
    """
    model, optimiser = loaded.model.train(), loaded.trainer.optimizer
    device = loaded.config["device"]
    targets = flops = real = computed = 0
    start = 0.0
    for done, batch in zip(range(count + 1), _forever(batches)):
        if done == 1:
            _wait(device)
            targets, real, computed, start = 0, 0, 0, perf_counter()
        batch = batch.to(device)
        optimiser.zero_grad(set_to_none=True)
        with ReadPositions(model) as positions:
            sum(model.calculate_loss(batch)).backward()
        optimiser.step()
        targets, real = (
            targets + model.windows.count_targets(batch),
            real + real_positions(model, batch) + positions.words,
        )
        computed += positions.computed
    _wait(device)
    seconds = perf_counter() - start
    flops = count_training_flops(model, batch).total / positions.computed * computed
    return {
        "steps": count,
        "targets": targets,
        "targets_a_second": targets / seconds,
        "positions_a_second": real / seconds,
        "padding": 1 - real / computed,
        "gflops": flops / seconds / 1e9,
    }


class ReadPositions:
    """Counts the positions of prompts and answers that a language model reads inside the block.

    Attributes:
        computed: all of them, padding included.
        words: those of answers that hold a word.
    """

    def __init__(self, model):
        self.model, self.computed, self.words = model, 0, 0
        self._answers = model.language.answers if model.language is not None else None

    def __enter__(self) -> "ReadPositions":
        self._hook = self.model.backbone.register_forward_hook(self._add)
        if self._answers is not None:
            self._answers.read_words = self._read_words
        return self

    def _add(self, module, inputs, states) -> None:
        self.computed += inputs[0].shape[0] * inputs[0].shape[1]

    def _read_words(self, *args):
        branches = type(self._answers).read_words(self._answers, *args)
        self.words += int(branches.real.sum())
        return branches

    def __exit__(self, *_) -> None:
        self._hook.remove()
        if self._answers is not None:
            del self._answers.read_words


def real_positions(model, batch) -> int:
    """Positions of the prompts of a batch without padding."""
    (item_seq,) = model.history.fitting(batch[model.ITEM_SEQ])
    return int(model.history.positions(item_seq).sum()) + len(item_seq) * model.prompt.prefix_length


@torch.no_grad()
def inference(loaded, users: int, one_by_one: int) -> dict[str, float]:
    """Users a second of the whole method (an answer word by word, the preference behind it, its ranking), in a batch,
    and of the released code's scheme with the same language model, or one as wide and deep as the compact one."""
    model, device = loaded.model.eval(), loaded.config["device"]
    batch = next(iter(loaded.data.test))[0][:users].to(device)

    def ours():
        encoding = model.encode_histories(batch, answer=True)
        model.answers(batch, encoding)
        model.top_k(batch, TOP, encoding=encoding)
        _wait(device)

    def ranking():
        model.top_k(batch, TOP)
        _wait(device)

    layout = model.history.layout(batch[model.ITEM_SEQ], batch[model.USER_ID])
    scheme = ReleasedScheme(
        loaded.config,
        model.item_vectors.weight,
        layout.vectors.shape[1],
        model.backbone if loaded.config["llm"] else None,
    )
    prompts = [layout.vectors[row, : int(layout.last(batch[model.ITEM_SEQ_LEN])[row]) + 1] for row in range(one_by_one)]
    released = [scheme.recommend(prompt)[1].total for prompt in prompts]
    ours_a_second, released_a_second = len(batch) / median_seconds(ours, 3), len(released) / sum(released)
    return {
        "ours_users_a_second": ours_a_second,
        "released_users_a_second": released_a_second,
        "times_faster": ours_a_second / released_a_second,
        "ranking_users_a_second": len(batch) / median_seconds(ranking, 3),
        "positions_a_prompt": model.prompt.prefix_length
        + float(model.history.positions(batch[model.ITEM_SEQ]).float().mean()),
        "positions_shared": layout.shared,
        "words_an_answer": model.language.longest_answer,
    }


def _forever(batches: Iterable) -> Iterator:
    while True:
        yield from batches


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(record: dict[str, Any]) -> str:
    """A few lines."""
    windows = record["windows"]
    lines = [
        f"{record['size']}: {record['parameters'] / 1e6:.0f} M parameters, {record['trained'] / 1e6:.2f} M trained, "
        f"{record['threads']} threads, {record['device']}",
        f"windows:  {windows['targets_a_second']:.1f} targets, {windows['positions_a_second']:.0f} positions a second, "
        f"padding {windows['padding']:.1%}, {windows['gflops']:.0f} GFLOP/s; {record['training_memory_mib']} MiB",
    ]
    if "prefixes" in record:
        prefixes, whole = record["prefixes"], record["inference"]
        lines += [
            f"prefixes: {prefixes['targets_a_second']:.1f} targets, {prefixes['positions_a_second']:.0f} positions a "
            "second",
            f"windows train {record['times_faster']:.1f} times the targets; peak memory "
            f"{record['peak_memory_mib']} MiB",
            f"answer, preference and ranking: {whole['ours_users_a_second']:.2f} users a second, ranking alone "
            f"{whole['ranking_users_a_second']:.2f}; the released scheme {whole['released_users_a_second']:.3f}, "
            f"{whole['times_faster']:.0f} times slower",
        ]
    if "share_of_matrix_rate" in record:
        lines.append(f"{record['share_of_matrix_rate']:.0%} of the matrix rate ({record['matrix_gflops']:.0f} GFLOP/s)")
    return "\n".join(lines)


def _parse(arguments):
    parser, positive = Parser(__doc__), partial(number, int, 1, None)
    parser.add_argument("--size", choices=(COMPACT, *SIZES), default="llama-100m")
    parser.add_argument("--dataset", type=name_of_a_folder, default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--tokenizer", help="a folder of a tokenizer (default: every byte is a word)")
    parser.add_argument("--batches", type=positive, default=5, help="steps timed of each way")
    parser.add_argument("--rows", type=positive, default=8, help="prefixes a step")
    parser.add_argument("--users", type=positive, default=64, help="users ranked at once")
    parser.add_argument("--one_by_one", type=positive, default=3, help="users that the released scheme ranks")
    parser.add_argument("--output", type=results_folder, default=RESULTS)
    parser.add_argument("--llm", help="a pretrained model, by folder or name, in the place of --size")
    parser.add_argument("--name", type=name_of_a_folder, help="of the record (default: the size or the model's name)")
    parser.add_argument("--only_training", action="store_true", help="measure the training on windows alone")
    given, settings = parser.parse_known_args(arguments)
    given.llm, given.size = (folder_or_name(given.llm), Path(given.llm).name) if given.llm else (None, given.size)
    given.name = given.name or given.size
    refuse_odd_settings(parser, settings)
    return given, settings


if __name__ == "__main__":
    sys.exit(main())
