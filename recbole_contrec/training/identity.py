"""
recbole_contrec.training.identity
#################################
What a checkpoint is about: a model, its weights, and the users and items it numbers. One of another model or
data set is refused before it is used.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_contrec.errors import UserError
from recbole_contrec.interface import ChosenOnValidation
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.stages import fingerprint

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


class Identity(NamedTuple):
    """Names by internal number: two data sets with the same ones number items and users alike."""

    dataset: str
    items: list[str]
    users: list[str]

    @classmethod
    def of(cls, dataset: "Dataset") -> "Identity":
        """Of a RecBole data set."""
        names = (dataset.field2id_token[field] for field in (dataset.iid_field, dataset.uid_field))
        return cls(dataset.dataset_name, *([str(token) for token in tokens] for tokens in names))

    def with_histories(self, histories: Any) -> str:
        """Hash of the items and of some training histories: the data that a stage depends on."""
        return fingerprint(*histories, texts=(self.items,))


def fingerprint_of_data(dataset: "Dataset") -> str:
    """Hash of the interactions, item features and item texts of a RecBole data set as they are read: what two data sets
    with the same users and items may differ in."""
    features = [dataset.inter_feat, dataset.item_feat]
    columns = {
        f"{number} {name}": column
        for number, feature in enumerate(features)
        if feature is not None
        for name, column in getattr(feature, "interaction", feature).items()
    }
    arrays = {name: np.asarray(column) for name, column in sorted(columns.items())}
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
    texts = sorted((getattr(dataset, "item_texts", None) or {}).items())
    return fingerprint(
        *arrays.values(), texts=(arrays, *(column for field, column in texts for column in ((field,), column)))
    )


def pack_model(model: Any, identity: Identity) -> dict[str, torch.Tensor]:
    """Everything of a model and its data set that goes into a checkpoint as tensors."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors.update({f"other.{name}": tensor for name, tensor in pack_other(model)[0].items()})
    return {**tensors, "items": checkpoint.pack_names(identity.items), "users": checkpoint.pack_names(identity.users)}


def load_weights(
    model: Any, path: Path, name: str, identity: Identity, stored: checkpoint.Checkpoint | None = None
) -> checkpoint.Checkpoint:
    """Put the weights of a checkpoint into a model, and what validation has chosen with them where its settings leave
    that open.

    Args:
        name: of the model, as it must stand in the checkpoint.
        identity: of the data set, likewise.
        stored: what is in the file, where it has been read.

    Raises:
        UserError: no such checkpoint, one of another model, another data set, or another size, or weights that are no
            numbers; the model is as it was then.
    """
    stored = stored or checkpoint.load(path)
    check_identity(stored, name, identity, path)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        other = unpack_other(stored.part("other"), stored.record["other"], device)
        if unknown := set(other) - set(model.other_parameter() or {}):
            raise ValueError(f"the model has no {min(unknown)}")
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        raise checkpoint.damaged(path, error) from error
    choices = _choices(model, stored, path)
    _load_state(model, stored.part("model"), path)
    model.load_other_parameter(other)
    for part, value in choices:
        part.choose(value)
    return stored


def open_parts(model: Any) -> list[ChosenOnValidation]:
    """The parts of a model that leave a setting to validation."""
    return [part for part in model.modules() if isinstance(part, ChosenOnValidation) and part.candidates[1]]


def _choices(model: Any, stored: checkpoint.Checkpoint, path: Path) -> list[tuple[ChosenOnValidation, float]]:
    """For every setting that is open in a model, what it was with the weights; the first one to choose from before
    anything was chosen.

    Raises:
        UserError: what stands there is no number.
    """
    found = []
    for part in open_parts(model):
        name, values = part.candidates
        value = stored.record.get("settings", {}).get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise checkpoint.damaged(path, f"{name}={value!r}")
        found.append((part, values[0] if value is None else value))
    return found


def check_weights(model: Any, path: Path, stored: checkpoint.Checkpoint) -> None:
    """Whether the weights of a checkpoint fit a model, which stays as it is.

    Raises:
        UserError: as :func:`load_weights`.
    """
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    _load_state(model, stored.part("model"), path)
    model.load_state_dict(own)


def _load_state(model: Any, state: dict[str, torch.Tensor], path: Path) -> None:
    """All of the weights or none: PyTorch copies those that fit before it complains about the others."""
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    _check_values(model, state, own, path)
    try:
        model.load_state_dict(state)
    except Exception as error:  # parts of a model read states of their own, out of which anything may come
        model.load_state_dict(own)
        lines = str(error).splitlines() or [type(error).__name__]
        if not isinstance(error, RuntimeError):
            raise checkpoint.damaged(path, error) from error
        edited = "size mismatch" in str(error) and any(name.startswith("language.") for name in own)
        raise UserError(
            f"{path} does not fit the model as configured: {lines[-1].strip():.300}"
            + "; if item texts were edited after training, it needs those of then" * edited
        ) from error


def _check_values(model: Any, state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], path: Path) -> None:
    """Numbers of the same kind, which PyTorch would convert without a word, and weights that are numbers.

    Raises:
        UserError: names the tensor.
    """
    weights = {name for name, _ in model.named_parameters()}
    for name, tensor in state.items():
        if name in own and _kind_of(tensor) != _kind_of(own[name]):
            raise checkpoint.damaged(path, f"{name} is of type {tensor.dtype}, not {own[name].dtype}")
        if name in own and tensor.dim() != own[name].dim() and tensor.numel() == own[name].numel() == 1:
            raise checkpoint.damaged(path, f"{name} has shape {list(tensor.shape)}, not {list(own[name].shape)}")
        if tensor.is_floating_point():
            bad = ~tensor.isfinite() if name in weights else tensor.isnan()
            if count := int(bad.sum()):
                raise UserError(
                    f"{path} holds weights that are not finite ({name}: {count:,} of {tensor.numel():,}): the file is "
                    "damaged, or training had diverged"
                )


def _kind_of(tensor: torch.Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    return "bool" if tensor.dtype == torch.bool else "complex" if tensor.is_complex() else "int"


def check_identity(stored: checkpoint.Checkpoint, model: str, identity: Identity, path: Path) -> None:
    """Refuse a checkpoint of another model or data set.

    Raises:
        UserError: says what differs.
    """
    if "model" not in stored.record:
        raise UserError(f"{path} holds no model: name the folder of a run, or a checkpoint in it")
    if stored.record["model"] != model:
        theirs = stored.record["model"]
        raise UserError(f"{path} is a checkpoint of {theirs}, not of {model}: use --model={theirs}")
    for what in ("items", "users"):
        ours = getattr(identity, what)
        try:
            theirs = checkpoint.unpack_names(stored.tensors[what])
        except (KeyError, ValueError) as error:
            raise checkpoint.damaged(path, f"no names of {what}") from error
        if theirs != ours:
            raise UserError(
                f"{path} was trained on {stored.record['dataset']!r} with {len(theirs) - 1} {what}; these are "
                f"{len(ours) - 1} {what} of {identity.dataset!r}: use the same data and filters"
            )


# What RecBole calls other parameters: attributes of a model that are no weights, of any type.


def pack_other(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Other parameters as (tensors, JSON record); what is a module has its weights in ``state_dict`` already.

    Raises:
        UserError: a value that can be stored without pickling in no way.
    """
    tensors: dict[str, torch.Tensor] = {}
    record: dict[str, Any] = {}
    for name, value in (model.other_parameter() or {}).items():
        if torch.is_tensor(value):
            tensors[name] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[name], record[name] = torch.from_numpy(np.array(value)), {"numpy": type(value) is np.matrix}
        elif sp.issparse(value):
            matrix = value.tocsr()
            parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
            tensors.update({f"{name}.{part}": torch.from_numpy(array.copy()) for part, array in parts.items()})
            record[name] = {"sparse": value.format, "shape": list(value.shape)}
        elif not isinstance(value, nn.Module):
            try:
                record[name] = {"value": json.loads(json.dumps(value))}
            except TypeError as error:
                raise UserError(
                    f"{type(model).__name__} keeps {name} as {type(value).__name__}, which a checkpoint "
                    "without pickled code cannot hold"
                ) from error
    return tensors, record


def unpack_other(
    tensors: dict[str, torch.Tensor], record: dict[str, Any], device: torch.device | str
) -> dict[str, Any]:
    """Back from :func:`pack_other`.

    Raises:
        ValueError, KeyError, TypeError: these are not what it gives.
    """
    found: dict[str, Any] = {
        name: tensor.to(device) for name, tensor in tensors.items() if name.split(".")[0] not in record
    }
    for name, how in record.items():
        if "numpy" in how:
            array = tensors[name].numpy()
            found[name] = np.asmatrix(array) if how["numpy"] else array
        elif "sparse" in how:
            data, indices, indptr = (tensors[f"{name}.{part}"].numpy() for part in ("data", "indices", "indptr"))
            matrix = sp.csr_matrix((data, indices, indptr), shape=tuple(how["shape"]))
            matrix.check_format(full_check=True)  # a wrong index would read outside of its memory
            found[name] = matrix.asformat(how["sparse"])
        else:
            found[name] = how["value"]
    return found
