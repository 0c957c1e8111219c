"""How many pairs a dataset has room for, and how many documents are worth rewriting for that."""

import math

from aitp_tasks.records.versions import Yield

#: So many times as many documents are drawn as the yield asks for.
MARGIN = 1.25
#: Documents that are taken to give one pair where none has been seen to: few, so that a first night does not
#: fall short.
_UNMEASURED = 2


def trained_on(sft_examples: int, held_out: float) -> int:
    """Of so many SFT examples, how many to expect in the dataset: which are held out, their texts say."""
    return round(sft_examples * (1 - held_out))


def room(sft_examples: int, share: float) -> int | None:
    """How many rewritten pairs the largest share allows beside so many SFT examples; None: any number."""
    if share == 1.0:
        return None
    # Rounded, because 0.6 / 0.4 * 8 is a little less than 12.
    return int(round(share / (1 - share) * sft_examples, 6))


def documents(places: int, measured: Yield) -> int:
    """How many documents to draw so that their pairs fill so many places."""
    return math.ceil(round(MARGIN * places / pairs_per_document(measured), 6))


def pairs_per_document(measured: Yield) -> float:
    """How many pairs a document gives, by what was measured."""
    if measured.pairs:
        return measured.pairs / measured.documents
    return 1 / max(measured.documents, _UNMEASURED)
