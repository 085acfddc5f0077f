"""
recbole_contrec.model.semantic_ids
##################################
What models that generate semantic ids are made of: the codes of the items (:mod:`.item_tokenizer`), what
writes them (:mod:`.code_decoder`), RecBole's methods by these parts (:mod:`.recommender`), and how semantic ids improve
themselves (:mod:`.self_improvement`) by what describes the items (:mod:`.descriptions`).
"""

from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder, CodeDecoderSettings, code_heads
from recbole_contrec.model.semantic_ids.descriptions import self_improvement_of
from recbole_contrec.model.semantic_ids.given_ids import GivenIds, names_file
from recbole_contrec.model.semantic_ids.item_tokenizer import ItemTokenizer
from recbole_contrec.model.semantic_ids.recommender import SemanticIdRecommender
from recbole_contrec.model.semantic_ids.room import positions_of
from recbole_contrec.model.semantic_ids.self_improvement import SelfImprovement
from recbole_contrec.model.semantic_ids.self_improvement_settings import check_self_improvement
from recbole_contrec.model.semantic_ids.user_buckets import UserBuckets

__all__ = [
    "CodeDecoder",
    "CodeDecoderSettings",
    "GivenIds",
    "ItemTokenizer",
    "SelfImprovement",
    "SemanticIdRecommender",
    "UserBuckets",
    "check_self_improvement",
    "code_heads",
    "names_file",
    "positions_of",
    "self_improvement_of",
]
