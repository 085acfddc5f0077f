"""
recbole_contrec.item_files
##########################
Files about items that other runs and programs start from: the item vectors before training, and the semantic ids of a
trained model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_file, check_folder, write_whole
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.given import given_settings
from recbole_contrec.settings.python_values import python_settings
from recbole_contrec.settings.registry import find_model
from recbole_contrec.storage import folders
from recbole_contrec.storage.stages import run_stages
from recbole_contrec.training.identity import Identity


def write_item_vectors(
    output: str,
    model: str,
    dataset: str,
    settings: Mapping[str, Any] | None = None,
    *,
    config_file_list: Sequence[str] = (),
    arguments: Sequence[str] = (),
    properties: str | None = None,
) -> tuple[int, int]:
    """Write the item vectors that a model would start from, for use elsewhere or as ``item_vectors`` of other runs.

    Args:
        output: the ``.npy`` file; the item tokens go beside it, see ``load_vectors``.
        model: whose settings and sources of vectors these are.
        dataset: name of the data set.
        settings: by key, as for :func:`~recbole_contrec.quick_start.run`. The vectors are those of ``item_vectors``,
            from training interactions and texts only; without that setting a ``text_encoder`` means ``text``.
        config_file_list: YAML files, as for :func:`~recbole_contrec.quick_start.run`.
        arguments: settings as on the command line.
        properties: a folder with ``model/*.yaml`` and ``dataset/*.yaml`` of your own.

    Returns:
        tuple: items and width of the vectors [rows, d].

    Raises:
        UserError: whatever the user can mend.
    """
    from recbole_contrec.item_vectors.sources import check_names, check_source, vector_stages  # slow imports
    from recbole_contrec.model.parts.unread import OF_SOURCES, refuse_unread
    from recbole_contrec.tokenizer import save_vectors

    config = _config_of_vectors(model, dataset, settings, config_file_list, arguments, properties)
    check_file(output, "--output")
    check_folder(config["checkpoint_dir"], "--checkpoint_dir")
    refuse_unread(config, OF_SOURCES)
    check_names(config)
    data = load_data(config)
    training = data.train_dataset
    check_source(config, training)
    found: dict[str, Any] = {}
    identity = Identity.of(data.dataset)
    run_stages(
        vector_stages(config, training, found),
        identity.with_histories(training.histories),
        Path(config["checkpoint_dir"]) / folders.STAGES,
        config["show_progress"],
    )
    try:
        save_vectors(output, identity.items[1:], found["items"][1:])
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {output}: {error}") from error
    items, width = found["items"][1:].shape
    return items, width


def _config_of_vectors(
    model: str,
    dataset: str,
    settings: Mapping[str, Any] | None,
    config_file_list: Sequence[str],
    arguments: Sequence[str],
    properties: str | None,
) -> Config:
    """The configuration whose item vectors are written.

    Raises:
        UserError: a bad setting, or a model that has no item vectors.
    """
    settings = python_settings(settings, model, dataset)
    given = given_settings(config_file_list, settings, arguments)
    implied: dict[str, Any] = (
        {"item_vectors": "text"} if given.get("text_encoder") and "item_vectors" not in given else {}
    )
    if "text_similarity" in find_model(model, properties_folders(properties)).settings:
        implied["text_similarity"] = 0.0  # of the scores, not of the vectors
    config = Config(model, dataset, list(config_file_list), None, arguments, properties, {**settings, **implied})
    if not {"item_vectors", "vector_size"} <= config.settings.keys():
        raise UserError(f"{model} has no item_vectors: name a model that has, for instance --model=ContRec")
    return config


def write_semantic_ids(loaded: LoadedRun, output: str) -> int:
    """Write the semantic ids of a trained model, as :func:`~recbole_contrec.tokenizer.read_codes` reads them.

    Args:
        loaded: of :func:`~recbole_contrec.reloading.load_data_and_model`.
        output: the ``.json`` file.

    Returns:
        int: items that have semantic ids.

    Raises:
        UserError: the model has none, or the file cannot be written.
    """
    from recbole_contrec.model.semantic_ids import SemanticIdRecommender  # slow imports, needed here only
    from recbole_contrec.tokenizer import write_codes

    if not isinstance(loaded.model, SemanticIdRecommender):
        raise UserError(f"{loaded.config['model']} has no semantic ids: name a run of TIGER, SIIT or TokenRec-beam")
    table = loaded.model.decoder.item_codes
    tokens = Identity.of(loaded.data.dataset).items
    try:
        written = []
        write_whole(
            Path(output),
            lambda path: written.append(write_codes(path, tokens, table.codes.cpu(), table.unknown_code)),
        )
    except OSError as error:
        raise UserError(f"cannot write {output}: {error}") from error
    return written[0]
