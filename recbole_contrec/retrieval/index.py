"""
recbole_contrec.retrieval.index
###############################
Approximate search for the best items: a graph of near neighbours over the item vectors, HNSW (Malkov and Yashunin,
"Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs", TPAMI 2020,
arXiv 1603.09320).

By faiss, whose wheels need no compiler and no GPU, and which searches for the largest inner product. hnswlib has the
same algorithm, but comes as source alone: every machine that installs it needs a C++ compiler.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_contrec.packages import require

NEIGHBOURS = 32  # edges of an item in the graph (M in the paper)
EF_CONSTRUCTION = 200  # candidates that are looked at for the edges of an item


class HNSWIndex:
    """A graph over vectors, searched for the largest inner products. It is built in memory, on the CPU, by as many
    threads as torch has; with one thread the same vectors give the same graph.

    Args:
        vectors: [N, d]; row 0 is the padding and never found.
        ef_search: candidates that a search keeps (ef in the paper). More find more, and take longer.

    Raises:
        UserError: faiss is not installed.
    """

    def __init__(self, vectors: Tensor, ef_search: int):
        require("faiss", "--index=hnsw")
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.ef_search = ef_search
        self.graph: Any = faiss.IndexHNSWFlat(vectors.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self.graph.hnsw.efConstruction = EF_CONSTRUCTION
        self.graph.add(_array(vectors[1:]))

    def search(self, queries: Tensor, more: int = 0) -> Tensor:
        """Candidates for queries [n, d]: item numbers [n, C] without an order, 0 = none.

        Args:
            more: candidates beside ``ef_search``, in the place of those that will be left out.
        """
        count = min(self.ef_search + more, self.graph.ntotal)
        self.graph.hnsw.efSearch = count
        _, found = self.graph.search(_array(queries), count)  # -1 = none
        return torch.from_numpy(found + 1).to(queries.device)


def _array(vectors: Tensor) -> np.ndarray:
    return np.ascontiguousarray(vectors.detach().float().cpu().numpy())
