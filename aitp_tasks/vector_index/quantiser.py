"""Which kind of index a set gets, and the quantiser that its shards share.

The corpus's quantiser is trained once for an encoder and a number of lists, on the
vectors of some chunks of the first run that needs it, and kept by all runs: a set
that grows keeps all that was encoded, until the number of lists doubles. It decides
nothing but how near a search comes. By the SFT set's, documents are scored and pairs
left out: it is the set's own, whatever was trained before.
"""

import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, vectors
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index.library import Quantiser

log = logging.getLogger(__name__)

#: Vectors up to which an exact index is built, and no quantiser.
FLAT_VECTORS = 200_000
#: Training vectors for each list; FAISS wants 39 at least.
_SAMPLE_PER_LIST = 40
_MOST_LISTS = 2**14


def lists_for(count: int) -> int:
    """How many lists an index of so many vectors gets: a power of two near 4 √n; 0 for none."""
    if count <= FLAT_VECTORS:
        return 0
    return min(1 << round(math.log2(4 * math.sqrt(count))), _MOST_LISTS)


def ensure(storage: Storage, prefix: str, lists: int, chunks: Iterable[str]) -> str:
    """Key of the quantiser of so many lists; it is trained where there is none yet.

    Args:
        storage: where everything lies.
        prefix: what the key starts with; it names the encoder and the role.
        lists: how many it has.
        chunks: keys of the chunks that it may be trained on.
    """
    key = f"{prefix}-{lists}.faiss"
    if storage.find(key) is None:
        sample = _sample(storage, chunks, _SAMPLE_PER_LIST * lists)
        log.info("quantiser=%s is trained on vectors=%d", key, len(sample))
        storage.write_if_absent(key, Quantiser.trained(sample, lists))
    return key


def ensure_own(storage: Storage, prefix: str, lists: int, chunks: Sequence[str], count: int) -> str:
    """As ``ensure``, for a set whose searches decide something: its quantiser is that of its own vectors.

    The key names the chunks that it was trained on, so that it does not matter which run was
    first. They are drawn by hash: a set that grows a little keeps most of them, and often all.

    Args:
        storage: where everything lies.
        prefix: what the key starts with; it names the encoder and the role.
        lists: how many it has.
        chunks: keys of all chunks of the set.
        count: vectors in them.
    """
    wanted = _SAMPLE_PER_LIST * lists
    drawn = sorted(chunks, key=digest.of_text)[: max(math.ceil(wanted * len(chunks) / count), 1)]
    key = f"{prefix}-{lists}-{digest.of_value(list(drawn))}.faiss"
    if storage.find(key) is None:
        sample = _sample(storage, drawn, wanted)
        log.info("quantiser=%s is trained on vectors=%d", key, len(sample))
        storage.write_if_absent(key, Quantiser.trained(sample, lists))
    return key


def load(storage: Storage, key: str) -> Quantiser:
    """Read a quantiser.

    Raises:
        InputError: it does not exist, or is damaged.
    """
    try:
        return Quantiser(storage.read(key), storage.uri(key))
    except InputError as error:
        raise InputError(f"{error}; or delete it and the run's merge manifest, then run `aitp merge` again")


def _sample(storage: Storage, chunks: Iterable[str], wanted: int) -> vectors.Values:
    """Vectors float16 (at most ``wanted``, d) of the chunks whose keys have the smallest hashes."""
    found: list[vectors.Values] = []
    for _, some in vectors.read_all(storage, sorted(chunks, key=digest.of_text)):
        found.append(some.values)
        if sum(map(len, found)) >= wanted:
            break
    return np.concatenate(found)[:wanted]
