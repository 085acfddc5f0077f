"""What a run says of the code it ran on."""

import subprocess

import pytest

from recbole_contrec import environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a package, settings and results in it; returns a function that runs git there."""

    def git(*words):
        told = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", "-C", str(tmp_path), *told, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    for name in ("package/environment.py", "properties/overall.yaml", "results/seed1.json"):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text("before\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "environment.py"))
    return git


@pytest.mark.parametrize(
    "name, sign", [("results/seed1.json", ""), ("properties/overall.yaml", "+"), ("package/environment.py", "+")]
)
def test_the_commit_is_marked_where_code_or_settings_differ_and_not_for_results(checkout, tmp_path, name, sign):
    commit = checkout("rev-parse", "--short=12", "HEAD")
    assert environment.git_commit() == commit
    (tmp_path / name).write_text("after\n")
    assert environment.git_commit() == commit + sign
    (tmp_path / name).unlink()
    assert environment.git_commit() == commit + sign


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "environment.py"))
    assert environment.git_commit() is None
