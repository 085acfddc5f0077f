"""
recbole_contrec.cli.vectors
###########################
``vectors``: the item vectors that a model would start from, as a file.
"""

from collections.abc import Sequence

from recbole_contrec.cli.options import Command, paths
from recbole_contrec.errors import UserError

DESCRIPTION = """\
Write the item vectors that a model would start from, made of training interactions and texts only.
The item tokens go beside them, one a line: FILE.tokens.txt."""

EPILOG = """\
Settings that matter here; all others of the model are read as well:
  --item_vectors=svd        svd, lightgcn, text, or two of them (svd+text)
  --text_encoder=MODEL      reads the texts in place of TF-IDF: a folder or a name at Hugging Face; given alone it means
                            --item_vectors=text
  --vector_size=64          width of the vectors
  --data_path=DIR           where the data sets lie

Examples:
  python run_recbole_contrec.py vectors --dataset=ml-100k --output=vectors.npy
  python run_recbole_contrec.py vectors --dataset=ml-1m --item_vectors=svd+text --vector_size=128 --output=both.npy
  python run_recbole_contrec.py --model=ContRec --dataset=ml-1m --item_vectors=both.npy --vector_size=128"""


def parser() -> Command:
    """The options of ``vectors``."""
    command = Command("vectors", DESCRIPTION, EPILOG)
    command.value("dataset", "NAME", "as in training")
    command.value("output", "FILE.npy", "the file to write")
    command.value("model", "NAME", "whose settings these are (default: ContRec)", default="ContRec")
    command.value("config_files", "A,B", "YAML files of settings; later ones win", paths, [])
    command.value("properties", "DIR", "a folder with model/*.yaml and dataset/*.yaml of your own")
    command.usual()
    return command


def vectors(arguments: Sequence[str]) -> int:
    """Write item vectors.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options, settings = command.read(arguments)
    if options.dataset is None or options.output is None:
        raise UserError("name both --dataset=NAME and --output=FILE.npy")
    if not options.output.endswith(".npy"):
        raise UserError(f"--output={options.output}: the name must end in .npy")
    from recbole_contrec.compat import require_recbole

    require_recbole()
    from recbole_contrec.item_files import write_item_vectors
    from recbole_contrec.quick_start import fetch_missing_data

    given = dict(config_file_list=options.config_files, arguments=settings, properties=options.properties)
    fetch_missing_data(options.model, options.dataset, **given)
    items, width = write_item_vectors(options.output, options.model, options.dataset, **given)
    print(
        f"written: {options.output}, {items:,} items of width {width}; train with --item_vectors={options.output} "
        f"--vector_size={width}"
    )
    return 0
