"""
recbole_contrec.data.vectors
############################
Vectors of users and items: what the tokenizers turn into tokens. They come from training interactions and from texts of
the items; no validation or test item of anybody has a say in them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from recbole.model.general_recommender import LightGCN
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from recbole_contrec.data.text import joined, tfidf
from recbole_contrec.data.windows import WindowDataset
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.stages import Report
from recbole_contrec.tokenizer import CollaborativeVectors, history_means, load_vectors, standardise, svd_vectors

METHODS = ("svd", "lightgcn", "text")


def user_and_item_vectors(config, dataset: WindowDataset, report: Report) -> CollaborativeVectors:
    """Vectors of about unit variance a coordinate, rows by internal number, row 0 (padding) zero.

    Args:
        config: reads ``item_vectors`` (``svd``, ``lightgcn``, ``text``, two of them as ``svd+text``, which share the width,
            or the path of a ``.npy`` file keyed by item token), ``vector_size``, ``lightgcn_epochs``, ``seed``.
        dataset: its training histories are the only interactions used.
        report: called as the work goes on.

    Raises:
        UserError: the file cannot be used, or there are no texts; says why.
    """
    source, size = config["item_vectors"], config["vector_size"]
    methods = methods_of(source)
    if not methods:
        return _standardised(_with_history_means(_vectors_from_file(source, size, dataset), dataset))
    parts = [_standardised(_vectors_by(method, size // len(methods), config, dataset, report)) for method in methods]
    return CollaborativeVectors(*(torch.cat(columns, dim=1) for columns in zip(*parts)))


def methods_of(source: str) -> list[str]:
    """The methods that ``item_vectors`` names; none where it names a file."""
    names = source.split("+")
    return names if set(names) <= set(METHODS) else []


def check_source(source: str, size: int) -> None:
    """Stop before anything is trained where ``item_vectors`` names neither methods nor a file.

    Raises:
        UserError: names the nearest method, or says that ``size`` (``vector_size``) cannot be shared.
    """
    methods = methods_of(source)
    if not methods and not Path(source).is_file():
        raise UserError(f"item_vectors={source}: neither a file nor one of "
                        f"{', '.join(METHODS)}{did_you_mean(source, METHODS)}")
    if len(set(methods)) < len(methods) or methods and size % len(methods):
        raise UserError(f"item_vectors={source}: {len(methods)} different parts must share vector_size={size} evenly")


def source_content(source: str, dataset: WindowDataset) -> str | None:
    """Hash of the files or texts behind ``item_vectors``, so that changed ones are not mistaken for the old ones."""
    methods = methods_of(source)
    if methods:
        return hashlib.sha256("\0".join(joined(dataset.item_texts)).encode()).hexdigest() if "text" in methods else None
    path = Path(source)
    digest = hashlib.sha256(path.read_bytes())
    for beside in sorted(path.parent.glob(f"{path.stem}.tokens*")):
        digest.update(beside.read_bytes())
    return digest.hexdigest()


def _vectors_by(method: str, size: int, config, dataset: WindowDataset, report: Report) -> CollaborativeVectors:
    if method == "svd":
        return svd_vectors(*dataset.histories.pairs(), dataset.user_num, dataset.item_num, size, seed=config["seed"])
    if method == "lightgcn":
        return _lightgcn_vectors(size, config, dataset, report)
    if not dataset.item_texts:
        raise UserError(f"item_vectors={config['item_vectors']}: {config['dataset']!r} has no item texts (a .item file with "
                        "text columns)")
    return _with_history_means(text_vectors(joined(dataset.item_texts), size, config["seed"]), dataset)


def text_vectors(texts: Sequence[str], size: int, seed: int) -> torch.Tensor:
    """Latent semantic analysis: truncated SVD of the TF-IDF of texts, rows of unit length.

    Args:
        texts: N of them; an empty one gets a row of zeros.
        size: d; columns beyond the rank are zero.

    Returns:
        [N, d] float32.

    Raises:
        UserError: no text holds a word.
    """
    try:
        matrix = tfidf().fit_transform(texts)                                     # [N, words]
    except ValueError as error:
        raise UserError("item_vectors asks for texts, and the item texts hold no words") from error
    rank = min(size, *(side - 1 for side in matrix.shape))
    vectors = torch.zeros(len(texts), size)
    if rank > 0:
        reduced = TruncatedSVD(rank, random_state=seed).fit_transform(matrix)
        vectors[:, :rank] = torch.from_numpy(normalize(reduced))
    return vectors


def _standardised(vectors: CollaborativeVectors) -> CollaborativeVectors:
    return CollaborativeVectors(standardise(vectors.users), standardise(vectors.items))


def _with_history_means(items: torch.Tensor, dataset: WindowDataset) -> CollaborativeVectors:
    return CollaborativeVectors(history_means(*dataset.histories.pairs(), items, dataset.user_num), items)


def _vectors_from_file(path: str, size: int, dataset: WindowDataset) -> torch.Tensor:
    try:
        loaded = load_vectors(path, [str(token) for token in dataset.field2id_token[dataset.iid_field]])
    except (OSError, ValueError) as error:
        raise UserError(f"item_vectors={path}: {error}") from error
    if loaded.vectors.shape[1] != size:
        raise UserError(f"item_vectors={path} has vectors of width {loaded.vectors.shape[1]}: "
                        f"set --vector_size={loaded.vectors.shape[1]}")
    return loaded.vectors


def _lightgcn_vectors(size: int, config, dataset: WindowDataset, report: Report) -> CollaborativeVectors:
    """RecBole's LightGCN, trained with BPR on the training pairs; its propagated vectors, not its layer-0 tables."""
    batch_size, epochs = 4096, config["lightgcn_epochs"]
    settings = {"USER_ID_FIELD": config["USER_ID_FIELD"], "ITEM_ID_FIELD": config["ITEM_ID_FIELD"],
                "NEG_PREFIX": config["NEG_PREFIX"], "device": config["device"],
                "embedding_size": size, "n_layers": 2, "reg_weight": 1e-5, "require_pow": False}
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
