"""
recbole_contrec.item_vectors.lightgcn
#####################################
Vectors of users and items from RecBole's LightGCN (He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126).
"""

from collections.abc import Mapping
from typing import Any

import torch
from recbole.model.general_recommender import LightGCN

from recbole_contrec.data.windows import WindowDataset
from recbole_contrec.storage.stages import Report
from recbole_contrec.tokenizer import CollaborativeVectors


def lightgcn_vectors(
    size: int, config: Mapping[str, Any], dataset: WindowDataset, report: Report
) -> CollaborativeVectors:
    """RecBole's LightGCN, trained with BPR on the training pairs; its propagated vectors, not its layer-0 tables.

    Args:
        size: d.
        config: reads ``lightgcn_epochs``, ``seed`` and ``device``, and the names of fields.
        dataset: its training histories are the only interactions used.
        report: called after every epoch.

    Returns:
        Users [U, d] and items [N, d] on the CPU; zero for whatever has no training interaction.
    """
    batch_size, epochs = 4096, config["lightgcn_epochs"]
    settings = {
        "USER_ID_FIELD": config["USER_ID_FIELD"],
        "ITEM_ID_FIELD": config["ITEM_ID_FIELD"],
        "NEG_PREFIX": config["NEG_PREFIX"],
        "device": config["device"],
        "embedding_size": size,
        "n_layers": 2,
        "reg_weight": 1e-5,
        "require_pow": False,
    }
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
