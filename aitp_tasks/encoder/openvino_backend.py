"""Vectors on a CPU, by OpenVINO: one stream a core, bfloat16 where the processor computes in it.

A stream a core, each with small batches that stay in its cache, is faster than
all cores on one batch: no core waits for another (docs/measurements.md).
"""

import os
import queue
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.facts import Facts

_BATCH_TOKENS = 1024
#: Requests that wait while every stream is busy, so that none of them idles.
_AHEAD = 1


class OpenVinoBackend:
    """A compiled model on all cores that this process may use."""

    #: A chunk gives enough batches of this size.
    window_tokens = 0

    def __init__(self, graph: Path, facts: Facts, batch_tokens: int | None) -> None:
        cores = len(os.sched_getaffinity(0))
        self._queue = openvino.AsyncInferQueue(_compiled(graph, str(facts.precision), cores), cores + _AHEAD)
        self._pad = facts.pad
        self.dimension = facts.dimension
        self.batch_tokens = batch_tokens or _BATCH_TOKENS
        self.name = f"cpu-openvino-{facts.precision}"

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """Answers as the streams finish them."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

        def put(request: Any, batch: Batch) -> None:
            # A copy: the request's own memory is used again.
            answers.put(Answer(batch, np.array(request.get_output_tensor(0).data, dtype=np.float32)))

        self._queue.set_callback(put)
        try:
            for batch in batches:
                ids, mask = batch.padded(self._pad)
                self._queue.start_async({"input_ids": ids, "attention_mask": mask}, batch)
                while not answers.empty():
                    yield answers.get()
        finally:
            # However this run ends, nothing of it may answer the next one.
            self._queue.wait_all()
        while not answers.empty():
            yield answers.get()

    def memory_mb(self) -> float:
        """A CPU has no memory of its own."""
        return 0.0


def precisions() -> list[str]:
    """Precisions of this processor, fastest first."""
    # Without the instructions, bfloat16 would be emulated.
    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["bf16", "f32"] if capable else ["f32"]


def least_cosine(
    graph: Path, precision: str, tokenizer: Any, texts: Sequence[str], expected: NDArray[np.float32]
) -> float:
    """Smallest cosine of the compiled model's vectors to those expected, over padded texts."""
    features: Mapping[str, NDArray[np.int64]] = tokenizer(
        list(texts), padding=True, truncation=True, return_tensors="np"
    )
    found = _compiled(graph, precision, 1)(
        {name: features[name] for name in ("input_ids", "attention_mask")}
    )[0]
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / norms).min())


def _compiled(graph: Path, precision: str, streams: int) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
    }
    return openvino.Core().compile_model(graph, "CPU", settings)
