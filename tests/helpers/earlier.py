"""Checkpoints as an earlier version wrote them."""

from pathlib import Path

from recbole_contrec.storage import checkpoint


def take_from_the_record(folder: Path, setting: str) -> None:
    """Make the checkpoints of a run those of a version that did not have a setting yet."""
    for path in (folder / "best.safetensors", folder / "last.safetensors"):
        stored = checkpoint.load(path)
        settings = {key: value for key, value in stored.record["settings"].items() if key != setting}
        checkpoint.save(path, stored.tensors, {**stored.record, "settings": settings})
