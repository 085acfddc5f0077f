"""benchmarks.index: recall and speed of an approximate search."""

from benchmarks.index import main


def test_random_vectors(capsys):
    assert main(["--items", "300", "--width", "4", "--users", "5", "--ef", "10", "1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["exact", "graph", "ef_search=10", "ef_search=1000"]
    assert "recall@10 1.0000" in lines[0] and "recall@10 1.0000" in lines[-1]
