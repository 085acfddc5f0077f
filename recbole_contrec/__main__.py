"""
recbole_contrec.__main__
########################
The command line, the same as ``python run_recbole_contrec.py`` and ``python -m recbole_contrec``.
"""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from recbole_contrec.errors import UserError, bounded, did_you_mean
from recbole_contrec.files import check_file, write_whole
from recbole_contrec.packages import require

USAGE = """\
Generative recommendation with language models inside RecBole.

  python run_recbole_contrec.py --model=ContRec --dataset=ml-100k [--key=value ...]
      train, validate after every epoch, test the best epoch, keep a checkpoint
  python run_recbole_contrec.py recommend --checkpoint=PATH --users=1,2,3 [--k=10]
      ranked items for users (--all), or for somebody new (--history=item,item,...)
  python run_recbole_contrec.py prepare --dataset=ml-1m [--from=FILE_OR_URL]
      download and convert a data set; see `prepare --help`
  python run_recbole_contrec.py vectors --dataset=ml-1m --text_encoder=MODEL --output=vectors.npy
      item vectors from texts or interactions, as files; see `vectors --help`

Options of training
  --model=NAME           of this package, of a properties/ folder, or of RecBole (SASRec, BERT4Rec, ...)
  --dataset=NAME         ml-100k comes with RecBole; others lie in --data_path=DIR/NAME/NAME.inter
  --config_files=A,B     YAML files of settings, later ones win
  --properties=DIR       a folder with model/*.yaml and dataset/*.yaml of your own
  --resume=PATH          go on with a killed run (its folder)
  --output=FILE.json     write protocol card, metrics, seconds and settings
  --seed=N               of everything that is random
  --list-models, --list-datasets, --settings (with --model: its settings and their meaning)
  --debug                show the traceback of an error

Every setting is --key=value; priority: command line, config files, the data set's YAML,
the model's YAML for that data set, the model's YAML, defaults."""

RECOMMEND_USAGE = """\
  --checkpoint=PATH      a checkpoint or the folder of a run
  --users=1,2,3 | --all  users of the data set
  --history=ITEM,ITEM    what somebody new has seen, in order of time
  --k=10                 items a user
  --include_seen         also items of the history
  --batch_size=256       users scored at once
  --output=FILE          .csv or .parquet instead of the screen
  --data_path=DIR, --properties=DIR   where data and properties lie now
  --llm=DIR, --text_encoder=DIR       where pretrained models lie now"""

VECTORS_USAGE = """\
  --dataset=NAME         as in training
  --output=FILE.npy      the vectors; the item tokens go beside them, one a line: FILE.tokens.txt
  --item_vectors=...     svd, lightgcn, text, or two of them (svd+text), from training interactions and texts only
  --text_encoder=MODEL   reads the texts in place of TF-IDF: folder or Hugging Face name; alone it means --item_vectors=text
  --vector_size=64       their width
  --model=ContRec        whose settings these are, and whose other settings count
  --config_files=A,B, --properties=DIR, --key=value   as in training

--item_vectors=FILE.npy --vector_size=WIDTH gives them to a run."""

# Errors of a disk or of rights, which no check can rule out.
_OF_THE_MACHINE = {
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.EFBIG,
    errno.ESTALE,
}

OWN_OPTIONS = (
    "model",
    "dataset",
    "config_files",
    "properties",
    "resume",
    "list-models",
    "list-datasets",
    "settings",
    "debug",
    "help",
)
RECOMMEND_OPTIONS = (
    "checkpoint",
    "users",
    "all",
    "history",
    "k",
    "include_seen",
    "batch_size",
    "output",
    "data_path",
    "properties",
    "llm",
    "text_encoder",
    "debug",
    "help",
)
VECTORS_OPTIONS = ("model", "dataset", "output", "config_files", "properties", "debug", "help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 for an error that the user can mend (shown in one or two lines)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _show_messages()
    command = COMMANDS.get(arguments[0] if arguments else "")
    try:
        status = command(arguments[1:]) if command else _train(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output has enough: ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own last flush is silent
        return 1
    except Exception as error:
        if "--debug" not in arguments and (lack := _lack_of_memory(error)):
            _end_progress_bars()
            print(
                f"error: out of memory: {lack}. Lower train_batch_size, eval_batch_size or MAX_ITEM_LIST_LENGTH",
                file=sys.stderr,
            )
            return 2
        of_machine = isinstance(error, OSError) and error.errno in _OF_THE_MACHINE
        if "--debug" in arguments or not (of_machine or isinstance(error, (UserError, FloatingPointError))):
            raise
        _end_progress_bars()
        text = f"{error.strerror}: {error.filename}" if of_machine and error.filename else str(error)
        print(f"error: {bounded(text)}", file=sys.stderr)
        return 2


def _end_progress_bars() -> None:
    """Close the bars that an error has left standing in the middle of a line."""
    bars = sys.modules["tqdm"].tqdm if "tqdm" in sys.modules else None
    for bar in list(getattr(bars, "_instances", ())):
        bar.close()


def _lack_of_memory(error: Exception) -> str | None:
    if not isinstance(error, (MemoryError, RuntimeError)):
        return None
    from recbole_contrec.memory import out_of_memory  # slow, and torch is loaded where this happens

    return out_of_memory(error)


def _show_messages(stream=None) -> None:
    """Print what is logged before a run starts; a run then logs through RecBole's handlers, to the screen and a file."""
    ours = logging.getLogger("recbole_contrec")
    ours.handlers, ours.propagate = [logging.StreamHandler(stream or sys.stdout)], False
    ours.setLevel(logging.INFO)


def _train(arguments: list[str]) -> int:
    if not arguments or {"--help", "-h"} & set(arguments):
        print(USAGE)
        return 0
    if not arguments[0].startswith("-"):
        raise UserError(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], COMMANDS)}")
    own, settings = split_arguments(arguments, OWN_OPTIONS)
    from recbole_contrec.compat import require_recbole

    require_recbole()
    if "list-models" in own or "list-datasets" in own or "settings" in own:
        return _list(own, settings)
    if "model" not in own or "dataset" not in own:
        raise UserError("name both --model=NAME and --dataset=NAME; --list-models and --list-datasets show them")
    from recbole_contrec.quick_start import fetch_missing_data, run

    files = own["config_files"].replace(",", " ").split() if "config_files" in own else []
    fetch_missing_data(own["model"], own["dataset"], files, settings, own.get("properties"))
    run(
        own["model"],
        own["dataset"],
        files,
        arguments=settings,
        properties=own.get("properties"),
        resume=own.get("resume"),
    )
    return 0


def _list(own: dict[str, str], settings: list[str]) -> int:
    from recbole_contrec.catalogue.datasets import list_datasets
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, list_models

    if other := [a for a in settings if not a.startswith("--data_path=")]:
        raise UserError(f"{other[0]}: the lists read --model, --properties and --data_path only")
    folders = properties_folders(own.get("properties"))
    if "list-models" in own:
        for name, where, description in list_models(folders):
            print(f"{name:<24} {where:<18} {description}")
    if "list-datasets" in own:
        paths = [a.split("=", 1)[1] for a in settings if a.startswith("--data_path=")]
        for name, where in list_datasets(folders, paths[0] if paths else "dataset"):
            print(f"{name:<24} {where}")
    if "settings" in own:
        if "model" not in own:
            raise UserError("--settings needs --model=NAME")
        for setting in find_model(own["model"], folders).settings.values():
            print(f"--{setting.key}={setting.default}\n      {setting.meaning}")
    return 0


def _prepare(arguments: list[str]) -> int:
    from recbole_contrec.data.prepare import main as prepare_main

    return prepare_main(arguments)


def _recommend(arguments: list[str]) -> int:
    if not arguments or {"--help", "-h"} & set(arguments):
        print(RECOMMEND_USAGE)
        return 0
    own, unknown = split_arguments(arguments, RECOMMEND_OPTIONS)
    if unknown:
        name = unknown[0].lstrip("-").split("=")[0]
        raise UserError(
            f"recommend has no option {unknown[0]}{did_you_mean(name, RECOMMEND_OPTIONS)}; "
            "options have the form --key=value"
        )
    if "checkpoint" not in own:
        raise UserError("name the checkpoint with --checkpoint=PATH")
    if not {"users", "all", "history"} & set(own):
        raise UserError("name the users with --users=1,2,3 or --all, or bring a --history=item,item,...")
    if "all" in own and {"users", "history"} & set(own):
        raise UserError("--all stands for every user of the data set: leave --users and --history away")
    k, batch_size = _whole_number(own, "k", 10), _whole_number(own, "batch_size", 256)
    if not own.get("output", ".csv").endswith((".csv", ".parquet")):
        raise UserError(f"--output={own['output']}: the name must end in .csv or .parquet")
    if "output" in own:
        check_file(own["output"], "--output", makes_folders=False)
        if own["output"].endswith(".parquet"):
            require("pyarrow", "writing Parquet")
    from recbole_contrec.compat import require_recbole

    require_recbole()
    from recbole_contrec.quick_start import load_data_and_model
    from recbole_contrec.recommendation import recommend_batches

    overrides = [f"--{key}={own[key]}" for key in ("data_path", "llm", "text_encoder") if key in own]
    _show_messages(sys.stderr)
    logging.getLogger("recbole_contrec").setLevel(logging.WARNING)  # the list is the output
    loaded = load_data_and_model(own["checkpoint"], overrides, own.get("properties"))
    users = [user.strip() for user in own["users"].split(",")] if "users" in own else None
    histories = [[item.strip() for item in own["history"].split(",") if item.strip()]] if "history" in own else []
    tables = recommend_batches(loaded, users, histories, k, "include_seen" not in own, batch_size)
    if "output" in own:
        _write(tables, own["output"])
    else:
        for table in filter(len, tables):  # nothing is left for somebody who has had it all
            print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    return 0


def _vectors(arguments: list[str]) -> int:
    if not arguments or {"--help", "-h"} & set(arguments):
        print(VECTORS_USAGE)
        return 0
    own, settings = split_arguments(arguments, VECTORS_OPTIONS)
    if "dataset" not in own or "output" not in own:
        raise UserError("name both --dataset=NAME and --output=FILE.npy")
    if not own["output"].endswith(".npy"):
        raise UserError(f"--output={own['output']}: the name must end in .npy")
    from recbole_contrec.compat import require_recbole

    require_recbole()
    from recbole_contrec.quick_start import fetch_missing_data, write_item_vectors

    model, files = own.get("model", "ContRec"), own.get("config_files", "").replace(",", " ").split()
    fetch_missing_data(model, own["dataset"], files, settings, own.get("properties"))
    items, width = write_item_vectors(
        own["output"], model, own["dataset"], files, arguments=settings, properties=own.get("properties")
    )
    print(
        f"written: {own['output']}, {items:,} items of width {width}; train with --item_vectors={own['output']} "
        f"--vector_size={width}"
    )
    return 0


def _write(tables, output: str) -> None:
    """Write tables one after the other to a file that appears when it is complete; no more than one is in memory.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_whole(
            Path(output), lambda part: (_write_csv if output.endswith(".csv") else _write_parquet)(tables, part)
        )
    except OSError as error:
        raise UserError(f"cannot write {output}: {error}") from error


def _write_csv(tables, path: Path) -> None:
    for number, table in enumerate(tables):
        table.to_csv(path, index=False, header=number == 0, mode="a" if number else "w")


def _write_parquet(tables, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds, writer = {"rank": pyarrow.int64(), "score": pyarrow.float32()}, None
    for table in tables:
        # Named, not guessed: the first table may be empty, for somebody who has had it all.
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in table.columns])
        writer = writer or parquet.ParquetWriter(path, schema)
        writer.write_table(pyarrow.Table.from_pandas(table, schema=schema, preserve_index=False))
    writer.close()


def split_arguments(arguments: Sequence[str], own: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options of the command itself as a dictionary, and all other arguments, which are settings.

    Raises:
        UserError: an option without its value, ``--key value`` in place of ``--key=value``, or an option twice with
            different values.
    """
    flags = {"list-models", "list-datasets", "settings", "debug", "help", "all", "include_seen"}
    found, rest = {}, []
    for place, argument in enumerate(arguments):
        name, equals, value = argument[2:].partition("=")
        if not argument.startswith("--") or name not in own:
            rest.append(argument)
        elif equals and name in flags:
            if value.lower() not in ("true", "false"):
                raise UserError(f"--{name} is given alone, or as True or False, not {value!r}")
            if value.lower() == "true":
                found[name] = ""
        elif equals:
            if found.setdefault(name, value) != value:
                raise UserError(f"--{name} is given twice: --{name}={found[name]} and --{name}={value}")
        elif name in flags:
            found[name] = ""
        else:
            following = arguments[place + 1] if place + 1 < len(arguments) else "VALUE"
            raise UserError(f"write --{name}={following.lstrip('-')} with an equals sign")
    return found, rest


def _whole_number(own: dict[str, str], name: str, default: int) -> int:
    try:
        number = int(own.get(name, default))
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(f"--{name}={own[name]}: a whole number of at least 1 is needed")
    return number


COMMANDS = {"prepare": _prepare, "recommend": _recommend, "vectors": _vectors}

if __name__ == "__main__":
    raise SystemExit(main())
