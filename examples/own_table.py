"""From a table of your own to recommendations.

    python examples/own_table.py

The table is made up here: 300 customers who mostly stay with one of six brands. Put your own in its place.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_contrec import recommend, run
from recbole_contrec.data.prepare import prepare


def made_up_tables(folder: Path) -> tuple[Path, Path]:
    """``buys.csv`` and ``products.csv``."""
    rng = np.random.default_rng(0)
    brands = rng.integers(6, size=120)  # of each product
    rows = []
    for customer in range(300):
        favourite, length = rng.integers(6), rng.integers(8, 25)
        weights = np.where(brands == favourite, 10.0, 1.0)
        for day, product in enumerate(rng.choice(120, size=length, replace=False, p=weights / weights.sum())):
            rows.append((f"c{customer}", f"p{product}", f"2024-01-{day + 1:02d}"))
    buys, products = folder / "buys.csv", folder / "products.csv"
    pd.DataFrame(rows, columns=["customer_id", "sku", "date"]).to_csv(buys, index=False)
    texts = {"sku": [f"p{i}" for i in range(120)], "title": [f"Product {i} by brand {brands[i]}" for i in range(120)]}
    pd.DataFrame(texts).to_csv(products, index=False)
    return buys, products


def main() -> None:
    """Prepare, train, recommend."""
    buys, products = made_up_tables(Path("."))
    done = prepare("shop", "dataset", buys, columns={"items": products}, force=True)
    print(*done.notes, sep="\n")  # which columns were taken
    small = {"epochs": 5, "hidden_size": 32, "inner_size": 64, "vector_size": 32, "show_progress": False}
    result = run("ContRec", "shop", settings=small, arguments=sys.argv[1:])
    print(f"NDCG@10 {result['test_result']['ndcg@10']:.4f} on the test data")
    print(recommend(result["checkpoint"], users=["c0", "c1"], k=3).to_string(index=False))


if __name__ == "__main__":
    main()
