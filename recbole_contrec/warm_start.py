"""
recbole_contrec.warm_start
##########################
Training that goes on from a checkpoint with other data: users and items that both have keep what was learned of them,
matched by their ids, new ones start from what is known of the others, and those that are gone go.

Axes: N items and U users of the data now, row 0 for the padding; n known and m new rows; d width of a vector; K codes
of an item, C codes of a codebook.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.errors import UserError
from recbole_contrec.interface import ITEMS, USERS, HasItemCodes, HasRows, Stage
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.processes import first_goes_first
from recbole_contrec.storage import checkpoint, folders
from recbole_contrec.storage.stages import run_stages
from recbole_contrec.tokenizer.new_items import free_codes, nearest_codes
from recbole_contrec.training.identity import Identity, load_weights

MORE_ROWS = 2  # that a table of RecBole may have beside those of the items: BERT4Rec's has one for its mask
ROWS_A_COLUMN = 2  # known rows for each column of the vectors that a linear map is fitted on; else the mean is taken


class Places(NamedTuple):
    """Where the items, or the users, of the data now stood in those of the checkpoint."""

    before: int  # rows then
    old: Tensor  # [N]    the row then, 0 = new
    gone: int  # how many are no more

    @property
    def known(self) -> Tensor:
        """Rows now that were there then [n], the padding among them."""
        known = self.old > 0
        known[0] = True
        return known.nonzero().squeeze(1)

    @property
    def new(self) -> Tensor:
        """Rows now that were not [m]."""
        new = self.old == 0
        new[0] = False
        return new.nonzero().squeeze(1)

    @property
    def changed(self) -> bool:
        """Whether rows are others, or have other numbers."""
        return self.before != len(self.old) or not torch.equal(self.old, torch.arange(self.before))

    @classmethod
    def of(cls, then: list[str], now: list[str]) -> "Places":
        """By names; row 0 is the padding in both."""
        rows = {name: row for row, name in enumerate(then)}
        old = torch.tensor([0, *(rows.get(name, 0) for name in now[1:])])
        return cls(len(then), old, len(then) - 1 - int((old > 0).sum()))


def start_from(loaded: LoadedRun, path: Path, show_progress: bool = False) -> str:
    """Put what a checkpoint has learned into a new model of other data, which then counts as trained.

    Args:
        loaded: a model that is assembled for the data now, with the settings of the checkpoint.
        path: of the checkpoint.

    Returns:
        str: what has been kept, for the log.

    Raises:
        UserError: the checkpoint is of another model, or does not fit; no item stands in both; or there is a
            vocabulary of the texts, which would be another one.
    """
    stored = checkpoint.load(path)
    name, model, identity = loaded.config["model"], loaded.model, Identity.of(loaded.data.dataset)
    if stored.record.get("model") != name:
        raise UserError(f"{path} is a checkpoint of {stored.record.get('model')}, not of {name}")
    try:
        names = {what: checkpoint.unpack_names(stored.tensors[what]) for what in (ITEMS, USERS)}
    except (KeyError, ValueError) as error:
        raise checkpoint.damaged(path, "no names of items or users") from error
    places = {ITEMS: Places.of(names[ITEMS], identity.items), USERS: Places.of(names[USERS], identity.users)}
    if len(places[ITEMS].known) == 1:
        raise UserError(f"{path}: none of its items stands in {identity.dataset!r}: there is nothing to go on from")
    if any(part.changed for part in places.values()):
        _refuse_words(model, name)
        carried = _carried(loaded, stored.part("model"), places, path, show_progress)
        stored = stored._replace(
            tensors={
                **{key: tensor for key, tensor in stored.tensors.items() if not key.startswith("model.")},
                **{f"model.{key}": tensor for key, tensor in carried.items()},
                ITEMS: checkpoint.pack_names(identity.items),
                USERS: checkpoint.pack_names(identity.users),
            }
        )
    load_weights(model, path, name, identity, stored)
    loaded.trained = True
    loaded.forget_trainer()
    counts = ", ".join(
        f"{len(part.known) - 1:,} {what} keep what was learned, {len(part.new):,} are new, {part.gone:,} are gone"
        for what, part in places.items()
    )
    return f"started from {path}: {counts}. The optimizer starts anew"


def row_tables(model: nn.Module, n_items: int, n_users: int) -> dict[str, str]:
    """Which tensors of a model's state have a row for every item, or every user: ``ITEMS`` or ``USERS`` by name.

    Parts of this package tell. In a model of RecBole they are the embeddings of as many rows, and biases of items;
    where there are as many items as users, a name with "user" in it is of users.
    """
    found = {}
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(module, HasRows):
            found.update({f"{dot}{name}": what for name, what in module.rows().items()})
    candidates = {
        f"{prefix}.weight": module.num_embeddings
        for prefix, module in model.named_modules()
        if type(module) is nn.Embedding and not _of_ours(model, prefix)
    }
    candidates.update({name: len(part) for name, part in model.named_parameters(recurse=False) if part.dim() == 1})
    for name, rows in candidates.items():
        if "pos" in name.lower() or name in found:
            continue
        fits = [what for what, count in ((ITEMS, n_items), (USERS, n_users)) if count <= rows <= count + MORE_ROWS]
        if fits:
            by_name = USERS if "user" in name.lower() else ITEMS
            found[name] = by_name if by_name in fits else fits[0]
    return found


def _of_ours(model: nn.Module, prefix: str) -> bool:
    """Whether a part of a model belongs to a part of this package, which would tell."""
    while prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix and type(model.get_submodule(prefix)).__module__.startswith("recbole_contrec."):
            return True
    return False


def _refuse_words(model: Any, name: str) -> None:
    """A vocabulary that is trained on the texts of one data set has other words in another one.

    Raises:
        UserError: the model has one.
    """
    language, improvement = getattr(model, "language", None), getattr(model, "improvement", None)
    if getattr(language, "has_own_vocabulary", False) or getattr(improvement, "words", None) is not None:
        raise UserError(
            f"{name} has a vocabulary of its own, trained on the texts of its data set: it cannot go on with other "
            "items. A pretrained llm can, and so can a model without words (prompt_text=none, answer_weight=0)"
        )


def _carried(
    loaded: LoadedRun, stored: dict[str, Tensor], places: dict[str, Places], path: Path, show_progress: bool
) -> dict[str, Tensor]:
    """The state of the model now, with what was learned then.

    Raises:
        UserError: a tensor has another size for another reason than the items and users.
    """
    model: Any = loaded.model
    now = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    if now.keys() != stored.keys():
        different = sorted(now.keys() ^ stored.keys())
        raise UserError(f"{path} does not fit the model as configured: {different[0]} stands in one of them alone")
    vectors = _vectors_of_today(loaded, show_progress)
    tables = row_tables(model, model.n_items, loaded.data.dataset.user_num)
    learned = {name for name, part in model.named_parameters() if part.requires_grad}
    carried = {}
    for name, own in now.items():
        old = stored[name]
        if name.endswith("text_similarity.vectors"):
            carried[name] = model.state_dict()[name].cpu().clone()  # made of the texts of today
        elif name in tables:
            place = places[tables[name]]
            if len(old) - place.before != len(own) - len(place.old) or old.shape[1:] != own.shape[1:]:
                raise _other_size(path, name, old, own)
            features = None if name.endswith("fold_in.features") else vectors.get(tables[name])
            carried[name] = _rows_of_today(old, own, place, features, name in learned)
        elif not own.is_floating_point() and name.startswith("language."):
            carried[name] = own  # words of the texts as they are now, in the vocabulary of a pretrained model
        elif old.shape == own.shape:
            carried[name] = old
        else:
            raise _other_size(path, name, old, own)
    _carry_buckets(model, carried, places[USERS])
    if isinstance(model, HasItemCodes):
        _code_new_items(loaded, carried, stored, places[ITEMS], vectors.get(ITEMS))
    return carried


def _other_size(path: Path, name: str, old: Tensor, own: Tensor) -> UserError:
    hint = ""
    if "words" in name or "code" in name or "quantiser" in name:
        hint = "; by default codebook_size follows the number of rows: give it as it was (--codebook_size)"
    return UserError(
        f"{path} does not fit the model as configured: {name} was {list(old.shape)} and is {list(own.shape)}{hint}"
    )


def _vectors_of_today(loaded: LoadedRun, show_progress: bool) -> dict[str, Tensor]:
    """Vectors of ``items`` [N, d] and ``users`` [U, d] from the data now, by which new rows are placed among the known
    ones; empty for a model without. What texts say of items is put into the model."""
    model, dataset = loaded.model, loaded.data.train_dataset
    config: Any = getattr(model, "vector_config", loaded.config)
    if "item_vectors" not in loaded.config.settings:
        return {}
    found: dict[str, Tensor] = {}

    def stages() -> Iterator[Stage]:
        yield from vector_stages(config, dataset, found)
        texts = getattr(getattr(model, "retrieval", None), "text_similarity", None)
        if texts is not None:
            yield from texts.stages(config, dataset, found)

    with first_goes_first():
        run_stages(
            stages(),
            Identity.of(loaded.data.dataset).with_histories(dataset.histories),
            Path(loaded.config["checkpoint_dir"]) / folders.STAGES,
            show_progress,
        )
    return {what: found[what].cpu() for what in (ITEMS, USERS)}


def _rows_of_today(old: Tensor, own: Tensor, place: Places, features: Tensor | None, learned: bool) -> Tensor:
    """A table with the known rows as they were, and the new ones placed among them.

    Args:
        old, own: the table then, and as a new model has it.
        features: vectors of today of all rows [N, d]; None to fill nothing in.
        learned: whether the rows are weights; else they stay empty where nothing places them.
    """
    rows = torch.empty_like(own)
    rows[: len(place.old)] = old[place.old]
    rows[len(place.old) :] = old[place.before :]  # what stands behind the items: BERT4Rec's mask
    if not own.is_floating_point():
        rows[place.new] = own[place.new]  # no codes yet
        return rows
    rows[place.new] = 0
    known = place.known[1:]
    filled = known[rows[known].flatten(1).any(1) if rows.dim() > 1 else rows[known] != 0]
    if learned and len(filled):
        rows[place.new] = rows[filled].mean(0)
    if features is not None and rows.dim() == 2:
        placed = place.new[features[place.new].any(1)]
        if (found := _mapped(features, rows, filled, placed)) is not None:
            size = rows[filled].norm(dim=1).mean()
            rows[placed] = F.normalize(found, dim=1) * size if learned else found
    return rows


def _mapped(features: Tensor, rows: Tensor, known: Tensor, new: Tensor) -> Tensor | None:
    """Rows [m, w] for new ones by the linear map that fits best from the vectors of today [N, d] to the known rows
    [n, w]; None where too few are known."""
    known = known[features[known].any(1)]
    if len(known) < ROWS_A_COLUMN * (features.shape[1] + 1):
        return None

    def inputs(numbers: Tensor) -> Tensor:
        return torch.cat([features[numbers], torch.ones(len(numbers), 1)], 1).double()

    # gelsd: columns beyond the rank of the vectors are zero
    solution = torch.linalg.lstsq(inputs(known), rows[known].double(), driver="gelsd").solution
    return (inputs(new) @ solution).to(rows.dtype)


def _carry_buckets(model: Any, carried: dict[str, Tensor], place: Places) -> None:
    """Users that share vectors by their number have other numbers: a bucket becomes the mean of what its users read."""
    from recbole_contrec.model.semantic_ids import UserBuckets  # slow

    users = getattr(model, "users", None)
    if not isinstance(users, UserBuckets) or not place.changed:
        return
    old = carried["users.weight"]
    known = place.known[1:]
    bucket, read = known % len(old), old[place.old[known] % len(old)]
    sums = torch.zeros_like(old).index_add_(0, bucket, read)
    counts = torch.bincount(bucket, minlength=len(old))[:, None]
    carried["users.weight"] = torch.where(counts > 0, sums / counts.clamp(min=1), old.mean(0))


# codes


def _code_new_items(
    loaded: LoadedRun, carried: dict[str, Tensor], stored: dict[str, Tensor], place: Places, features: Tensor | None
) -> None:
    """Give new items codes among those of the known ones.

    With a quantiser in the checkpoint (TokenRec) it is this that codes them, from vectors in the space that it was
    trained in. Otherwise a codeword is the mean of what its known items leave of their vectors of today, level by
    level, and a new item takes the nearest ones. Where every item must have codes of its own, the last one is the first
    that is free.

    Raises:
        UserError: too few codes to tell all items apart.
    """
    table = loaded.model.code_table
    [name] = [key for key, part in loaded.model.state_dict(keep_vars=True).items() if part is table.codes]
    codes, none = carried[name], table.unknown_code
    known = place.known[codes[place.known, 0] != none]
    if features is None or not len(known):
        return
    new = place.new[features[place.new].any(1)]
    found = None
    items: Any = getattr(loaded.model, "items", None)
    if hasattr(items, "quantiser") and (then := carried.get("users.fold_in.features")) is not None:
        scale = then[:, -1:]  # the features of a fold-in are vectors times their scale
        vectors = then[:, :-1] / torch.where(scale > 0, scale, 1)
        mapped = _mapped(features, vectors, known[scale[known, 0] > 0], new)
        if mapped is not None:
            quantiser = items.quantiser
            quantiser.load_state_dict(
                {
                    key[len("items.quantiser.") :]: part
                    for key, part in stored.items()
                    if key.startswith("items.quantiser.")
                }
            )
            with torch.no_grad():
                found = quantiser.encode(mapped.to(table.codes.device)).cpu()
    distinct = len(codes[known].unique(dim=0)) == len(known)
    level = codes.shape[1] - (1 if distinct else 0)  # codes that tell where an item lies
    if found is None:
        found = torch.cat([nearest_codes(features, codes, known, new, level), codes[new, level:]], 1)
    codes[new] = found
    if distinct:
        taken = {tuple(row) for row in codes[known].tolist()}
        for row, wanted in zip(new.tolist(), found.tolist()):
            codes[row] = torch.tensor(free_codes(wanted, taken, none))
