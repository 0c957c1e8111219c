"""Prompts filled, cut and tokenised in batches, beside the bare tokenizer on the same rendered texts.

2,000 documents of the demo's corpus, its own in turn until there are so many, in the
prompt that rewrites them, each cut where the demo's context is too short for it. In
turn, 512 documents each: the stage's batches, then one call of the tokenizer's backend
for the texts that came of them. The last line of output is JSON; ``cpu_ratio`` is of
processor time, which other work on the machine changes less.

    make bench-prompting
"""

import json
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
from measure import processor
from transformers import AutoTokenizer

from aitp_tasks.config import RunConfig
from aitp_tasks.generation.engine.prompting import Prompter, Rendered
from aitp_tasks.generation.prompt_files import load_folder
from aitp_tasks.machine import models

REPOSITORY = Path(__file__).resolve().parents[1]
_DOCUMENTS = 2000
#: As many as are prepared at a time for the demo's context.
_BATCH = 256
_IN_TURN = 512
_PASSES = 7


def main() -> None:
    """Measure in turn, and print the figures."""
    settings = RunConfig.load(REPOSITORY / "configs/demo.yaml")
    model = models.local(settings.engine)
    prompt = load_folder(settings.prompts)["rewrite"]
    room = int(prompt.sampling["max_tokens"])
    asked = [({"text": text}, room) for text in documents()]
    prompter = Prompter(settings.engine, model)

    def prepared(some: list[Any]) -> list[Rendered]:
        batches = (some[first : first + _BATCH] for first in range(0, len(some), _BATCH))
        rendered = (one for batch in batches for one in prompter.render_all(prompt, batch))
        return [one for one in rendered if isinstance(one, Rendered)]

    made = prepared(asked)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    messages = [[{"role": "user", "content": one.content}] for one in made]
    texts: list[str] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def bare(some: list[str]) -> list[list[int]]:
        read = tokenizer.backend_tokenizer.encode_batch_fast(some, add_special_tokens=False)
        return [one.ids for one in read]

    def timed_both(place: slice) -> tuple[float, ...]:
        return *timed(prepared, asked[place]), *timed(bare, texts[place])

    # No document of the demo holds a mark: the tokens are the same.
    assert bare(texts) == [one.token_ids for one in made]
    places = [slice(first, first + _IN_TURN) for first in range(0, len(made), _IN_TURN)]
    passes = [
        [sum(seconds) for seconds in zip(*(timed_both(place) for place in places), strict=True)]
        for _ in range(_PASSES)
    ]
    ours, our_cpu, theirs, their_cpu = zip(*passes, strict=True)
    ratios = [bare / own for own, bare in zip(ours, theirs, strict=True)]
    figures = {
        "documents": len(made),
        "cut": sum(one.cut_characters > 0 for one in made),
        "tokens_a_prompt": round(sum(len(one.token_ids) for one in made) / len(made)),
        "documents_per_second": round(len(made) / median(ours)),
        "bare_per_second": round(len(made) / median(theirs)),
        "prompting_vs_tokenizer": round(median(ratios), 3),
        "prompting_vs_tokenizer_each": [round(ratio, 3) for ratio in ratios],
        "cpu_ratio": round(sum(their_cpu) / sum(our_cpu), 3),
    }
    print(json.dumps(figures | {"processor": processor()}))


def documents() -> list[str]:
    """The texts of the demo's corpus, in turn."""
    paths = sorted((REPOSITORY / ".aitp/data/corpus").glob("*/*.parquet"))
    texts = [text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]
    return list(islice(cycle(texts), _DOCUMENTS))


def timed(work: Callable[[Any], object], argument: Any) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(argument)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
