"""
recbole_contrec.model.semantic_ids.given_ids
############################################
Semantic ids that come from elsewhere, in a file: how many codes that makes, and what is reported of them.
"""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from recbole_contrec.errors import UserError
from recbole_contrec.interface import Report, Stage, StageResult
from recbole_contrec.item_vectors.sources import file_content
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.showing import show
from recbole_contrec.tokenizer import CodesOfFile, identifier_report, read_codes, with_counter
from recbole_contrec.tokenizer.code_files import ENDINGS

logger = logging.getLogger("recbole_contrec")

NAMED = 3  # items that a message names


def names_file(source: str | None) -> bool:
    """Whether ``semantic_ids`` names a file, as its ending tells."""
    return source is not None and source.endswith(ENDINGS)


class GivenIds:
    """The semantic ids of a file, for the items of a data set.

    Items with the same codes are told apart by one more code behind them, which numbers them, as TIGER does with its
    own. Where all items have codes of their own, no code is added. An item that the file does not have gets no codes:
    it is read as unknown, and never generated.

    How many codes there are follows from the file, and is written into the settings of the run: a checkpoint is loaded
    without it.

    Axes: N items, K codes of an item with one that was added, C codes of a codebook.

    Args:
        config: reads ``semantic_ids``, and ``num_codebooks`` and ``codebook_size`` where they were set.
        dataset: whose items are looked for.
        without_last: whether ``num_codebooks`` leaves out the last code, which tells items apart.

    Attributes:
        num_codebooks: K.
        codebook_size: C.

    Raises:
        UserError: no such file, or one that cannot be used; a setting that contradicts it.
    """

    def __init__(self, config: Any, dataset: Any, without_last: bool):
        self.path = config["semantic_ids"]
        self._source = f"semantic_ids={self.path}"
        count, size = (config[key] if config.is_given(key) else None for key in ("num_codebooks", "codebook_size"))
        self._added = int(without_last)
        if count and size:  # as in a checkpoint, which has the codes: whatever lies there now is not asked
            self.num_codebooks, self.codebook_size, self._compared = count + self._added, size, False
            return
        self.num_codebooks, self.codebook_size = self._compare(dataset, count, size)
        self._compared = True
        config.resolve(num_codebooks=self.num_codebooks - self._added, codebook_size=self.codebook_size)

    def _compare(self, dataset: Any, count: int | None, size: int | None) -> tuple[int, int]:
        """Codes an item and codes of a codebook, by the file and what was set.

        Raises:
            UserError: what was set contradicts the file.
        """
        found = self._read(dataset)
        codes = self._distinct(found)
        if found.doubt:
            logger.warning("%s: %s", self._source, found.doubt)
        wanted = codes.shape[1] - self._added
        if count not in (None, wanted):
            raise UserError(
                f"num_codebooks={count}: {self._source} makes {codes.shape[1]} codes an "
                f"item{', the last one included' if self._added else ''}: leave num_codebooks away, or set {wanted}"
            )
        return codes.shape[1], self._size_for(max(found.largest, int(codes.max())) + 1, size)

    def _size_for(self, needed: int, size: int | None) -> int:
        if size is not None and size < needed:
            raise UserError(
                f"codebook_size={size}: {self._source} needs {needed} codes in a codebook: leave codebook_size away, "
                f"or set {needed} or more"
            )
        return size or max(needed, 2)

    def _read(self, dataset: Any) -> CodesOfFile:
        try:
            return read_codes(self.path, [str(token) for token in dataset.field2id_token[dataset.iid_field]])
        except (OSError, ValueError) as error:
            raise UserError(f"semantic_ids: {error}") from error

    def _distinct(self, found: CodesOfFile) -> Tensor:
        """Codes [N, K], -1 for an item that has none; all others are different."""
        least = 1 + self._added  # with one code in all, there would be none in front of the last
        if not found.shared and found.codes.shape[1] >= least:
            return found.codes
        none = len(found.codes) + int(found.codes.max()) + 1  # above every code, and every number of an item
        codes = with_counter(found.codes.masked_fill(found.codes < 0, none), none)
        return codes.masked_fill(codes == none, -1)

    # the stage

    def check(self, dataset: Any) -> None:
        """Stop before anything is written where the file is not there, or is not what was set.

        Raises:
            UserError: says why.
        """
        if not Path(self.path).is_file():
            raise UserError(f"{self._source}: no such file")
        if not self._compared:
            self._compare(dataset, self.num_codebooks - self._added, self.codebook_size)
            self._compared = True

    def stage(self, dataset: Any, table: CodeTable, accept: Any) -> Stage:
        """The stage that reads the file again, and reports of it.

        Args:
            table: that the codes go into.
            accept: called with the codes [N, K] when they are there.
        """
        self.check(dataset)

        def build(report: Report) -> StageResult:
            found = self._read(dataset)
            codes = self._distinct(found)
            codes = codes.masked_fill(codes < 0, self.codebook_size)
            return StageResult({"codes": codes}, self._figures(found, codes))

        def take(tensors: dict[str, Tensor]) -> None:
            accept(tensors["codes"])
            tokens = dataset.field2id_token[dataset.iid_field]
            without = (~table.known)[1:].nonzero().squeeze(1) + 1
            if len(without):
                logger.warning(
                    "%s has no codes for %d of %d items, such as %s: they are never generated",
                    self._source,
                    len(without),
                    len(tokens) - 1,
                    ", ".join(str(tokens[item]) for item in without[:NAMED].tolist()),
                )

        settings = {
            "semantic_ids": "file",
            "content": file_content(Path(self.path)),
            "tokens": self.num_codebooks,
            "codebook_size": self.codebook_size,
        }
        return Stage("identifiers", settings, build, take)

    def _figures(self, found: CodesOfFile, codes: Tensor) -> dict[str, Any]:
        for note in found.notes:
            logger.info("%s: %s", self._source, note)
        if found.unknown:
            logger.info(
                "%s: %d of its items are not in the data set, such as %s",
                self._source,
                len(found.unknown),
                show(found.unknown[:NAMED]),
            )
        return {
            **identifier_report(codes, self.codebook_size),
            "collisions_in_file": round(len(found.shared) / max(1, int((codes[:, 0] < self.codebook_size).sum())), 4),
            "items_not_in_file": len(found.missing),
            "items_of_file_unknown": len(found.unknown),
        }
