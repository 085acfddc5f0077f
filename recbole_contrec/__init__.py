"""
recbole_contrec
###############
Generative recommendation with language models inside RecBole 1.2.

Axes in shape comments. A docstring that needs another letter, or one of these for something else, explains it:

=====  ==========================================
``B``  rows of a batch
``L``  history length
``K``  tokens of an item or a user
``C``  codes of a codebook
``S``  prompt length
``D``  width of the language model; in ``tokenizer/`` of a token
``d``  width of an item vector
``U``  users, row 0 is padding
``N``  items, row 0 is padding
``T``  noise levels
``M``  samples of a preference
``W``  beams of a search
``V``  text vocabulary
``n``  a flat list of positions or rows
=====  ==========================================

``quick_start`` trains and evaluates, ``recommender`` and ``recommendation`` give lists for users; all are imported on
first use, because they load RecBole and torch.
"""

__version__ = "0.1.0"

_LAZY = {
    "run": "quick_start",
    "load_data_and_model": "reloading",
    "objective_function": "quick_start",
    "write_item_vectors": "item_files",
    "recommend": "recommendation",
    "Recommender": "recommender",
    "export": "exporting",
    "fold_in_interactions": "fold_in",
    "fold_in_texts": "fold_in",
    "Config": "settings.config",
    "UserError": "errors",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
