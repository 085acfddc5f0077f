"""
recbole_contrec.data.vectors
############################
Collaborative vectors of users and items: what the tokenizers turn into tokens. They come from training
interactions only; no validation or test item of anybody has a say in them.
"""

import hashlib
from pathlib import Path

import torch
from recbole.model.general_recommender import LightGCN

from recbole_contrec.data.windows import WindowDataset
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.stages import Report
from recbole_contrec.tokenizer import CollaborativeVectors, history_means, load_vectors, standardise, svd_vectors

METHODS = ("svd", "lightgcn")


def collaborative_vectors(config, dataset: WindowDataset, report: Report) -> CollaborativeVectors:
    """Vectors of about unit variance a coordinate, rows by internal number, row 0 (padding) zero.

    Args:
        config: reads ``item_vectors`` (``svd``, ``lightgcn`` or the path of a ``.npy`` file keyed by item token),
            ``vector_size``, ``lightgcn_epochs``, ``seed``.
        dataset: its training histories are the only interactions used.
        report: called as the work goes on.

    Raises:
        UserError: the file cannot be used; says why.
    """
    source, size = config["item_vectors"], config["vector_size"]
    users, items = dataset.histories.pairs()
    if source == "svd":
        vectors = svd_vectors(users, items, dataset.user_num, dataset.item_num, size, seed=config["seed"])
    elif source == "lightgcn":
        vectors = _lightgcn_vectors(config, dataset, report)
    else:
        item_vectors = _vectors_from_file(source, size, dataset)
        vectors = CollaborativeVectors(history_means(users, items, item_vectors, dataset.user_num), item_vectors)
    return CollaborativeVectors(standardise(vectors.users), standardise(vectors.items))


def check_source(source: str) -> None:
    """Stop before anything is trained where ``item_vectors`` names neither a method nor a file.

    Raises:
        UserError: names the nearest method.
    """
    if source not in METHODS and not Path(source).is_file():
        raise UserError(f"item_vectors={source}: neither a file nor one of "
                        f"{', '.join(METHODS)}{did_you_mean(source, METHODS)}")


def source_content(source: str) -> str | None:
    """Hash of the files behind ``item_vectors``, so that changed files are not mistaken for the old ones."""
    if source in METHODS:
        return None
    path = Path(source)
    digest = hashlib.sha256(path.read_bytes())
    for beside in sorted(path.parent.glob(f"{path.stem}.tokens*")):
        digest.update(beside.read_bytes())
    return digest.hexdigest()


def _vectors_from_file(path: str, size: int, dataset: WindowDataset) -> torch.Tensor:
    try:
        loaded = load_vectors(path, [str(token) for token in dataset.field2id_token[dataset.iid_field]])
    except (OSError, ValueError) as error:
        raise UserError(f"item_vectors={path}: {error}") from error
    if loaded.vectors.shape[1] != size:
        raise UserError(f"item_vectors={path} has vectors of width {loaded.vectors.shape[1]}: "
                        f"set --vector_size={loaded.vectors.shape[1]}")
    return loaded.vectors


def _lightgcn_vectors(config, dataset: WindowDataset, report: Report) -> CollaborativeVectors:
    """RecBole's LightGCN, trained with BPR on the training pairs; its propagated vectors, not its layer-0 tables."""
    batch_size, epochs = 4096, config["lightgcn_epochs"]
    settings = {"USER_ID_FIELD": config["USER_ID_FIELD"], "ITEM_ID_FIELD": config["ITEM_ID_FIELD"],
                "NEG_PREFIX": config["NEG_PREFIX"], "device": config["device"],
                "embedding_size": config["vector_size"], "n_layers": 2, "reg_weight": 1e-5, "require_pow": False}
    users, items = (torch.from_numpy(column) for column in dataset.histories.pairs())
    # The caller's random state stays as it is, so that a stage found on disk changes nothing later.
    with torch.random.fork_rng():
        torch.manual_seed(config["seed"])
        model = LightGCN(settings, dataset).to(config["device"])
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(users)).split(batch_size):
                negatives = torch.randint(1, dataset.item_num, (len(rows),))
                batch = {model.USER_ID: users[rows], model.ITEM_ID: items[rows], model.NEG_ITEM_ID: negatives}
                loss = model.calculate_loss({name: ids.to(config["device"]) for name, ids in batch.items()})
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            report(epoch + 1, epochs, f"LightGCN loss {total / len(users):.4f}")
    with torch.no_grad():
        user_vectors, item_vectors = (vectors.cpu() for vectors in model())
    return CollaborativeVectors(_without_unseen(user_vectors, users), _without_unseen(item_vectors, items))


def _without_unseen(vectors: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Zero rows for whatever has no training interaction: its vector would be random."""
    known = torch.zeros(len(vectors), dtype=torch.bool)
    known[seen] = True
    return vectors * known[:, None]
