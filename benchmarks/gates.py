"""How often each gate closes on the demo's SFT set, and how many checks a second one core does.

Alpaca's instructions are taken as questions, alone and with their inputs, and the
outputs as their documents; then the outputs as answers, with instruction and
input as the document. The demo's corpus gives documents for the speed. Before that,
how many of the tests' questions and answers in ten languages each gate closes that
it should, and that it should not (``--corpus`` prints that alone). The last line of
output is JSON.

    make bench-gates
    .venv/worker/bin/python benchmarks/gates.py --show mentions_document
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from measure import processor

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import on_answers, on_questions

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / ".aitp" / "data"
CORPUS = REPOSITORY / "tests/aitp_tasks/generation/gates/corpus"
_SHOWN = 100

#: What was checked, and the gate that closed.
Found = list[tuple[str, str | None]]


def main() -> None:
    """Count, measure, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", help="print the texts that this gate closes", metavar="GATE")
    parser.add_argument("--corpus", action="store_true", help="only the tests' questions and answers")
    arguments = parser.parse_args()
    show = arguments.show
    by_verdict = judged()
    for gate, counted in by_verdict.items():
        print(gate, *(f"{name}={count}" for name, count in counted.items()))
    if arguments.corpus:
        print(json.dumps(by_verdict))
        return
    examples, documents = rows("sft/alpaca"), [row["text"] for row in rows("corpus/*")]
    found = {
        "instructions": closed_questions((example["instruction"], example["output"]) for example in examples),
        "instructions_with_input": closed_questions(
            (asked(example), example["output"]) for example in examples
        ),
        "outputs": closed_answers(examples),
    }
    for name, each in found.items():
        for text, gate in each:
            if gate is not None and gate == show:
                print(name, repr(text[:_SHOWN]), "…", repr(text[-_SHOWN:]))
    figures: dict[str, Any] = {"corpus": by_verdict, **{name: counts(each) for name, each in found.items()}}
    figures["checks_per_second"] = speeds([example["instruction"] for example in examples], documents)
    print(json.dumps(figures | {"rows": len(examples), "processor": processor()}))


def judged() -> dict[str, Counter[str]]:
    """Of the tests' corpus, by gate: cases that it should close, those closed, and those falsely closed."""
    figures: dict[str, Counter[str]] = defaultdict(Counter)
    for document, kind, verdict, case in corpus():
        found = _gate(kind, case, document)
        if verdict == "open":
            figures[f"{found or 'open'} of {kind}"]["falsely_closed" if found else "open"] += 1
        else:
            figures[f"{verdict} of {kind}"].update(cases=1, closed=int(found is not None))
    return dict(sorted(figures.items()))


def corpus() -> Iterator[tuple[str, str, str, Any]]:
    """Document, kind, verdict and text of each case; an answer's is its question and itself."""
    for path in sorted(CORPUS.glob("*/*.yaml")):
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        for kind in ("questions", "answers"):
            for verdict, cases in loaded[kind].items():
                yield from ((loaded["document"], kind, verdict, case) for case in cases)


def _gate(kind: str, case: Any, document: str) -> str | None:
    if kind == "questions":
        return on_questions.closed(case, document, (), Gates())
    question, answer = case
    return on_answers.closed(answer, question, document, Gates())


def rows(folder: str) -> list[dict[str, Any]]:
    """The rows of all Parquet files of some folders of the demo's data."""
    return [
        row for path in sorted(DATA.glob(f"{folder}/*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def asked(example: dict[str, Any]) -> str:
    """The whole user turn of an example."""
    return "\n".join(text for text in (example["instruction"], example["input"]) if text)


def closed_questions(pairs: Iterable[tuple[str, str]]) -> Found:
    """The gate that closes each question, given its document."""
    return [(question, on_questions.closed(question, document, (), Gates())) for question, document in pairs]


def closed_answers(examples: list[dict[str, Any]]) -> Found:
    """The gate that closes each output."""
    return [
        (
            example["output"],
            on_answers.closed(example["output"], example["instruction"], asked(example), Gates()),
        )
        for example in examples
    ]


def counts(found: Found) -> dict[str, int]:
    """How often each gate closed."""
    return dict(Counter(gate for _, gate in found if gate is not None))


def speeds(texts: list[str], documents: list[str]) -> dict[str, int]:
    """Checks a second of one core: two questions a document, each document once; and all of it again."""
    pairs = [(text, documents[place // 2 % len(documents)]) for place, text in enumerate(texts)]
    pairs = list(islice(pairs, 2 * len(documents)))
    on_questions.closed(*pairs[-1], (), Gates())  # loads the model
    return {
        "new_documents": per_second(pairs, Gates()),
        "known_documents": per_second(pairs, Gates()),
        "without_language": per_second(pairs, Gates(question_language=False)),
    }


def per_second(pairs: list[tuple[str, str]], settings: Gates) -> int:
    """How many pairs of question and document are checked in a second of processor time."""
    start = time.process_time()
    for question, document in pairs:
        on_questions.closed(question, document, (), settings)
    return round(len(pairs) / (time.process_time() - start))


if __name__ == "__main__":
    main()
