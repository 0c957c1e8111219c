"""What of an evaluation set is found in pairs, what is found falsely, and how fast.

The demo's SFT set (Alpaca) is taken apart: examples of even rows are the items of an
evaluation set, those of odd rows and the corpus's documents are pairs that hold none of
them, but for what they repeat. Every item is planted in a pair in several ways, and found or
not; ``long`` are questions of 13 words or more. An alarm is false where a pair has only a
part of an item: what has all of it repeats it. For ``number_otherwise`` a number is put into
question and pair, written in other ways (48,213, 48.213, 48 213, 48213). Speed is of pairs
of 300 words against sets of a million runs, and of MinHash on as long texts, in processor
time of one core.
``meanings`` embeds: it is left out unless it is asked for.

    make bench-contamination
    make bench-contamination PARTS="planted speed texts meanings"
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measure import run_parts

from aitp_tasks.config import Encoder
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.selection.contamination.index import Index
from aitp_tasks.selection.near_texts import NearTexts
from aitp_tasks.texts import plain

REPOSITORY = Path(__file__).resolve().parents[1]
DATA, MODELS = REPOSITORY / ".aitp/data", REPOSITORY / ".aitp/models"
_LONG = 13
_BATCH = 256

Pair = tuple[str, str]


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"planted": planted, "speed": speed, "texts": texts, "meanings": meanings}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], metavar="PART")
    run_parts(parts, parser.parse_args().parts or ["planted", "speed", "texts"])


def planted(_: Path) -> dict[str, Any]:
    """Found share of each kind of planting, and false alarms, by the length of a run."""
    items, others = halves()
    figures: dict[str, Any] = {"items": len(items), "other_pairs": len(others)}
    for n in (8, 10, 13):
        index = Index(items, n)
        shares = [max(of_pair.values()) for of_pair in found(index, others) if of_pair]
        figures[f"repeated_{n}"] = sum(share == 1 for share in shares)
        figures[f"false_alarms_{n}"] = sum(share < 1 for share in shares)
        figures[f"false_alarms_{n}_of_half_an_item"] = sum(0.5 <= share < 1 for share in shares)
        figures[f"number_otherwise_{n}"] = numbers(items, n)
        for kind, plant in PLANTS.items():
            for length, some in by_length(items).items():
                hits = found(index, [plant(item, random.Random(number)) for number, item in some])
                held = sum(number in of_pair for (number, _), of_pair in zip(some, hits, strict=True))
                figures[f"{kind}_{length}_{n}"] = [held, len(some)]
    return figures


def numbers(items: Sequence[Item], n: int) -> list[int]:
    """Of long questions with a number in their middle, those found where it is written in another way."""
    sought, pairs = [], []
    for number, item in by_length(items)["long"]:
        words = item.question.split()
        written = f"{10_000 + 37 * number:,}"
        first, last = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
        other = written.replace(",", (".", " ", "", "'")[number % 4])
        sought.append(Item(f"{first} {written} {last}"))
        pairs.append((f"{first} {other} {last}", OWN_ANSWER))
    hits = found(Index(sought, n), pairs)
    whole = sum(of_pair.get(number, 0) == 1 for number, of_pair in enumerate(hits))
    return [whole, len(pairs)]


def speed(_: Path) -> dict[str, Any]:
    """Pairs a second of one core against a million runs of 13 words: none holds an item, and a tenth do."""
    draw = random.Random(1)
    words = [f"word{number}" for number in range(50_000)]

    def text(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    items = [Item(text(80), text(45)) for _ in range(10_000)]
    start = time.process_time()
    index = Index(items, 13)
    built = time.process_time() - start
    clean = [(text(40), text(260)) for _ in range(5_000)]
    dirty = [
        (items[number].question if number % 10 == 0 else question, answer)
        for number, (question, answer) in enumerate(clean)
    ]
    return {
        "runs": index.ngrams,
        "seconds_to_index": round(built, 2),
        "pairs_per_second": per_second(index, clean),
        "pairs_per_second_with_hits": per_second(index, dirty),
    }


def texts(_: Path) -> dict[str, Any]:
    """Texts of 300 words a second of one core by MinHash: taken in, and compared."""
    draw = random.Random(2)
    words = [f"word{number}" for number in range(50_000)]
    made = [" ".join(draw.choices(words, k=300)) for _ in range(4_000)]
    start = time.process_time()
    near = NearTexts([(str(number), text) for number, text in enumerate(made[:2_000])], 0.8)
    taken_in = time.process_time() - start
    start = time.process_time()
    for number, text in enumerate(made[2_000:]):
        near.see(str(number), text)
    compared = time.process_time() - start
    return {
        "texts_taken_in_per_second": round(2_000 / taken_in),
        "texts_compared_per_second": round(2_000 / compared),
    }


def meanings(_: Path) -> dict[str, Any]:
    """The same plantings and false alarms by vectors, at several limits, with the demo's encoder."""
    from aitp_tasks.encoder.opened import open_encoder
    from aitp_tasks.machine import models

    settings = Encoder(model=str(MODELS / "all-MiniLM-L6-v2"))
    encoder = open_encoder(settings, models.identity(settings))

    def embedded(pairs: Sequence[Pair]) -> Any:
        chunks = encoder.vectors_of("\n".join(filter(None, pair)) for pair in pairs)
        values = np.concatenate([chunk.values for chunk, _ in chunks]).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    items, others = halves()
    sought = embedded([(item.question, item.answer) for item in items])
    away = embedded(others)
    figures = {
        f"false_alarms_{limit}": int(((away @ sought.T).max(axis=1) > limit).sum()) for limit in LIMITS
    }
    for kind, plant in PLANTS.items():
        pairs = [plant(item, random.Random(number)) for number, item in enumerate(items)]
        own = (embedded(pairs) * sought).sum(axis=1)
        figures |= {f"{kind}_{limit}": [int((own > limit).sum()), len(pairs)] for limit in LIMITS}
    return figures


#: What answers no item.
OWN_ANSWER = "I would rather hear your own thoughts on this before I say anything."
#: Cosines above which texts are taken to say the same.
LIMITS = (0.8, 0.9, 0.95)


def halves() -> tuple[list[Item], list[Pair]]:
    """Items, and pairs without them."""
    rows = [
        row for path in sorted(DATA.glob("sft/alpaca/*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    asked = [("\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]) for row in rows]
    documents = [
        row["text"]
        for path in sorted(DATA.glob("corpus/*/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    said = [(text[:200], text[200:]) for text in documents]
    return [Item(*pair) for pair in asked[::2]], asked[1::2] + said


def by_length(items: Sequence[Item]) -> dict[str, list[tuple[int, Item]]]:
    """Items with their numbers, by whether their question is long."""
    found: dict[str, list[tuple[int, Item]]] = {"long": [], "short": []}
    for number, item in enumerate(items):
        found["long" if len(plain.split(item.question)) >= _LONG else "short"].append((number, item))
    return found


def verbatim(item: Item, _: random.Random) -> Pair:
    """As it is."""
    return item.question, item.answer


def retyped(item: Item, draw: random.Random) -> Pair:
    """In upper case or title case, with other punctuation."""
    case: Callable[[str], str] = draw.choice([str.upper, str.title])
    question, answer = (
        case(text).replace(".", " -- ").replace(",", ";") for text in (item.question, item.answer)
    )
    return question, answer


def embedded_in_more(item: Item, _: random.Random) -> Pair:
    """The question within a longer one, with another answer."""
    return (
        f"I found this in a notebook of my brother's. {item.question} Please explain it to me slowly.",
        f"Gladly, here is what I think of it. {item.answer}",
    )


def question_alone(item: Item, _: random.Random) -> Pair:
    """The question, with an answer of its own."""
    return item.question, OWN_ANSWER


def in_the_answer(item: Item, _: random.Random) -> Pair:
    """Question and answer as an example within an answer."""
    return (
        "Give me an example of a task with its solution.",
        f"Task: {item.question}\nSolution: {item.answer}",
    )


def one_word_exchanged(item: Item, draw: random.Random) -> Pair:
    """A word of the question exchanged, anywhere; the answer is another one."""
    words = item.question.split()
    words[draw.randrange(len(words))] = "otherwise"
    return " ".join(words), OWN_ANSWER


PLANTS: dict[str, Callable[[Item, random.Random], Pair]] = {
    "verbatim": verbatim,
    "retyped": retyped,
    "embedded": embedded_in_more,
    "question_alone": question_alone,
    "in_the_answer": in_the_answer,
    "one_word_exchanged": one_word_exchanged,
}


def found(index: Index, pairs: Sequence[Pair]) -> list[dict[int, float]]:
    """Numbers of the items that each pair holds, with the share of each."""
    return [
        {hit.item: hit.share_of_item for hit in of_pair}
        for start in range(0, len(pairs), _BATCH)
        for of_pair in index.hits(pairs[start : start + _BATCH])
    ]


def per_second(index: Index, pairs: Sequence[Pair]) -> int:
    """Pairs that are compared in a second of processor time."""
    start = time.process_time()
    found(index, pairs)
    return round(len(pairs) / (time.process_time() - start))


if __name__ == "__main__":
    main()
