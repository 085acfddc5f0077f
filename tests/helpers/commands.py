"""Arguments of tiny commands, and what they leave behind."""

from pathlib import Path

from tests.helpers.options import TINY, TINY_CONTREC, changed


def atomic(name, header, rows):
    path = Path("data") / name
    path.mkdir(parents=True)
    (path / f"{name}.inter").write_text("".join("\t".join(line.split()) + "\n" for line in (header, *rows)))


def train(*arguments):
    """Arguments of a tiny run of ContRec; the given ones, word for word, stand in for those of the same key."""
    given = [argument.split("=")[0] for argument in arguments]
    tiny = TINY if {"--model=SASRec", "--model=Own"} & set(arguments) else TINY_CONTREC
    defaults = ["--model=ContRec", "--dataset=tiny", "--data_path=data", *tiny]
    return [argument for argument in defaults if argument.split("=")[0] not in given] + list(arguments)


def recommend(*arguments):
    """Arguments of a list for one user from the run saved/mine."""
    return changed(["recommend", "--checkpoint=saved/mine", "--users=u3"], arguments)


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def yaml_of(folder, name, text):
    path = Path(folder) / "model" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
