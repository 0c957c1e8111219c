"""Windows: chunks that follow on one another, and whose sequences are batched together.

A device that computes a hundred thousand tokens at a time finds too few texts of like
length in one chunk: its batches would be a tenth of what it takes, or half padding.
Which chunks share their batches decides no vector; every chunk is written as soon as
it and those before it are complete, so that an interruption costs a window at most.
"""

from collections.abc import Iterable, Iterator

from aitp_tasks.encoder.chunks import Chunk

#: Chunks of a window at most, however few tokens they have: each row of them holds a vector.
LARGEST = 64


def grouped(read: Iterable[Chunk], tokens: int) -> Iterator[list[Chunk]]:
    """Chunks in windows of 1, 2, 4 and so on, up to ``LARGEST``.

    They grow, so that the device need not wait until the first large one has been read.

    Args:
        read: the chunks, in order.
        tokens: a window takes no further chunk once it has so many; 0 for windows of one chunk.
    """
    window: list[Chunk] = []
    wanted, held = 1, 0
    for chunk in read:
        window.append(chunk)
        held += chunk.tokens
        if len(window) == wanted or held >= tokens:
            yield window
            window, held = [], 0
            wanted = min(2 * wanted, LARGEST)
    if window:
        yield window
