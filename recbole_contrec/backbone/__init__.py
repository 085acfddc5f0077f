"""
recbole_contrec.backbone
########################
The language model that reads tokens: :class:`~recbole_contrec.backbone.prompt.Prompt` decides which
vector stands where, :class:`~recbole_contrec.backbone.instructions.Instructions` holds the instructions in words,
:class:`~recbole_contrec.backbone.decoder.CausalDecoder`,
:class:`~recbole_contrec.backbone.pretrained.PretrainedDecoder`,
:class:`~recbole_contrec.backbone.encoder_decoder.EncoderDecoder` or
:class:`~recbole_contrec.backbone.pretrained_t5.PretrainedT5` turns the vectors into states,
:class:`~recbole_contrec.backbone.t5_writer.T5Writer` writes on behind them, and
:class:`~recbole_contrec.backbone.answers.Answers` has them answer in the words of a
:class:`~recbole_contrec.backbone.vocabulary.Vocabulary`.

A language model of one's own takes their place if it has the methods of ``CausalDecoder``;
:class:`~recbole_contrec.backbone.language_model.LanguageModel` names those that answers need.
"""

from recbole_contrec.backbone.answers import Answers, Branches, Generated
from recbole_contrec.backbone.decoder import CausalDecoder, KeyValueCache
from recbole_contrec.backbone.encoder_decoder import EncoderDecoder
from recbole_contrec.backbone.grouping import length_groups, rows_at_once
from recbole_contrec.backbone.instructions import Instructions, VocabularyInstructions, words_of
from recbole_contrec.backbone.pretrained import PretrainedDecoder
from recbole_contrec.backbone.pretrained_model import PretrainedModel
from recbole_contrec.backbone.pretrained_t5 import PretrainedT5
from recbole_contrec.backbone.prompt import Layout, Prompt, Words
from recbole_contrec.backbone.t5_writer import T5Writer
from recbole_contrec.backbone.vocabulary import Encoded, Vocabulary

__all__ = [
    "Answers",
    "Branches",
    "CausalDecoder",
    "Encoded",
    "EncoderDecoder",
    "Generated",
    "Layout",
    "KeyValueCache",
    "PretrainedDecoder",
    "PretrainedModel",
    "PretrainedT5",
    "Prompt",
    "T5Writer",
    "Vocabulary",
    "VocabularyInstructions",
    "Instructions",
    "Words",
    "length_groups",
    "rows_at_once",
    "words_of",
]
