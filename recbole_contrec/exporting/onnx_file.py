"""
recbole_contrec.exporting.onnx_file
###################################
The way from a history to a preference as an ONNX graph, which other programs run without PyTorch.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.errors import UserError
from recbole_contrec.exporting.space import metadata_of, ranking_space
from recbole_contrec.files import write_whole
from recbole_contrec.interface import GeneratesPreferences, GeneratesSemanticIds, ReadsHistoriesInOnePass
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.retrieval import preference_side

INPUTS, OUTPUTS = ("item_ids", "lengths"), ("preference", "scores")
LARGEST = 2**25  # numbers of the item vectors that a graph holds to give scores: 128 MiB
TOLERANCE = 1e-3  # between a graph and PyTorch, of scores


class HistoryToPreference(nn.Module):
    """From histories to preferences and scores in one pass, without the grouping by length that saves time elsewhere.

    Args:
        loaded: what ``load_data_and_model`` gave.
        scores: whether it gives the scores of the whole catalogue as well.

    Raises:
        UserError: a model whose preferences are no single pass.
    """

    items: Tensor | None  # [N, d']

    def __init__(self, loaded: LoadedRun, scores: bool | None = None):
        super().__init__()
        _check(loaded)
        space = ranking_space(loaded)
        self.space, self.model, self.n_items = space, loaded.model, space.n_items
        with_scores = space.n_items * space.width <= LARGEST if scores is None else scores
        self.register_buffer("items", space.items(0, space.n_items).detach() if with_scores else None)

    def forward(self, item_ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Histories [B, L] of item numbers, padded with 0 at the end, and their lengths [B] -> preferences [B, d'] and,
        where they are given, scores [B, N]; that of number 0 is minus infinity."""
        model: Any = self.model
        if isinstance(model, ReadsHistoriesInOnePass):
            preference = preference_side(model.retrieval, model.preference_in_one_pass(item_ids, lengths), item_ids)
        else:
            preference = model.forward(item_ids, lengths)
        if self.items is None:
            return (preference,)
        scores = preference @ self.items.T  # [B, N]
        if self.space.repeat_bias is not None:
            # once each, also for an item that stands in the history twice
            seen = torch.zeros_like(scores).scatter(1, item_ids, torch.ones_like(item_ids, dtype=scores.dtype))
            scores = scores + self.space.repeat_bias * seen
        padding = torch.arange(self.n_items, device=scores.device) == 0
        return preference, scores.masked_fill(padding, -torch.inf)


def _check(loaded: LoadedRun) -> None:
    """Refuse what no graph of one pass is.

    Raises:
        UserError: says why.
    """
    model, name = loaded.model, loaded.config["model"]
    if isinstance(model, GeneratesSemanticIds):
        raise UserError(f"{name} writes semantic ids by a beam search, which is no single pass: there is no ONNX of it")
    if isinstance(model, GeneratesPreferences):
        why = model.no_single_pass() if isinstance(model, ReadsHistoriesInOnePass) else "it has no single pass"
        if why:
            raise UserError(f"{name}: {why}; there is no ONNX of it")
    elif not isinstance(model, SequentialRecommender):
        raise UserError(f"{name} reads user ids, not histories: there is no ONNX of it")


def write_onnx(loaded: LoadedRun, output: Path) -> int:
    """Write ``FILE.onnx`` and, beside it, ``FILE.items.txt`` with the id of item number 1, 2, ... on each line.

    The inputs are ``item_ids`` [B, L] and ``lengths`` [B], both int64: item numbers in order of time, at most the last
    L = ``MAX_ITEM_LIST_LENGTH``, padded with 0 at the end. The outputs are ``preference`` [B, d'] and, for a catalogue
    that is not too large, ``scores`` [B, N]. The graph is run once, and compared with PyTorch.

    Raises:
        UserError: a model whose preferences are no single pass, or that the exporter cannot translate.
    """
    import onnx

    module = HistoryToPreference(loaded).eval()
    histories = _some_histories(module.n_items, loaded.config["MAX_ITEM_LIST_LENGTH"], loaded.config["device"])
    names = OUTPUTS[: 1 if module.items is None else 2]
    program = _translated(module, histories, names, loaded.config["model"])
    items = loaded.data.dataset.field2id_token[loaded.data.dataset.iid_field]
    metadata = {**metadata_of(loaded, module.space), "items": f"{output.stem}.items.txt"}

    def write(path: Path) -> None:
        program.save(str(path))
        graph = onnx.load(str(path))
        onnx.helper.set_model_props(graph, {"metadata": json.dumps(metadata)})
        onnx.save(graph, str(path))
        _compare(module, path, histories, loaded.config["model"])

    write_whole(output, write)
    lines = "".join(f"{item}\n" for item in items[1:])
    write_whole(output.with_suffix(".items.txt"), lambda path: path.write_text(lines, encoding="utf-8"))
    return 0


def _some_histories(n_items: int, longest: int, device: Any) -> tuple[Tensor, Tensor]:
    """Five histories, the shortest of one item and the longest of L: with these the graph is drawn and compared."""
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.linspace(1, longest, 5).round().long()
    items = torch.randint(1, n_items, (5, longest), generator=drawn)
    return items.masked_fill(torch.arange(longest) >= lengths[:, None], 0).to(device), lengths.to(device)


def _translated(module: nn.Module, histories: tuple[Tensor, Tensor], names: tuple[str, ...], model: str) -> Any:
    batch = torch.export.Dim("batch", min=1)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about its own
            # first this: left alone, torch.onnx tries other ways as well, which fix the size of the batch
            program = torch.export.export(module, histories, dynamic_shapes=({0: batch}, {0: batch}), strict=False)
            return torch.onnx.export(program, (), input_names=INPUTS, output_names=names, dynamo=True, verbose=False)
    except Exception as error:  # whatever the exporter cannot do, of any kind
        text = " ".join(str(error).split())
        raise UserError(f"{model} cannot be translated to ONNX: {text:.300}") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _compare(module: nn.Module, path: Path, histories: tuple[Tensor, Tensor], model: str) -> None:
    """The graph gives what PyTorch does, for a batch of another size as well.

    Raises:
        UserError: it does not.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for rows in (slice(None), slice(1, 3)):
        given = {name: tensor[rows].cpu().numpy() for name, tensor in zip(INPUTS, histories)}
        with torch.no_grad():
            wanted = module(*(tensor[rows] for tensor in histories))
        for found, expected in zip(session.run(None, given), wanted):
            if not np.allclose(found, expected.cpu().numpy(), rtol=TOLERANCE, atol=TOLERANCE):
                raise UserError(f"{model}: onnxruntime computes something else than PyTorch; nothing was written")
