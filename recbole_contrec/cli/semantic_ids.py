"""
recbole_contrec.cli.semantic_ids
################################
``semantic_ids``: the semantic ids of a trained model, as a file that other runs start from.
"""

from collections.abc import Sequence

from recbole_contrec.cli.checkpoints import checkpoint_option, load, place_options
from recbole_contrec.cli.options import Command
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_file

DESCRIPTION = """\
Write the semantic ids of a trained TIGER, SIIT or TokenRec-beam: a .json file, item id -> list of codes.
It can be the semantic_ids of other runs, or be read elsewhere."""

EPILOG = """\
Examples:
  python run_recbole_contrec.py semantic_ids --checkpoint=saved/RUN --output=ids.json
  python run_recbole_contrec.py --model=TIGER --dataset=ml-100k --semantic_ids=ids.json"""


def parser() -> Command:
    """The options of ``semantic_ids``."""
    command = Command("semantic_ids", DESCRIPTION, EPILOG)
    checkpoint_option(command)
    command.value("output", "FILE.json", "the file to write")
    place_options(command)
    command.usual()
    return command


def semantic_ids(arguments: Sequence[str]) -> int:
    """Write semantic ids.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options = command.read_all(arguments)
    if options.checkpoint is None or options.output is None:
        raise UserError("name both --checkpoint=PATH and --output=FILE.json")
    if not options.output.endswith(".json"):
        raise UserError(f"--output={options.output}: the name must end in .json")
    check_file(options.output, "--output")
    loaded = load(options)
    from recbole_contrec.item_files import write_semantic_ids  # slow

    items = write_semantic_ids(loaded, options.output)
    print(f"written: {options.output}, {items:,} items; train with --semantic_ids={options.output}")
    return 0
