"""The pairs of a run, with all that tells where each comes from."""

from collections.abc import Iterable, Iterator
from typing import Any

from aitp_tasks.inputs.examples import Turn
from aitp_tasks.records import generated, selected
from aitp_tasks.records.run import Run

_OF_DOCUMENT = ("doc_id", "dump", "source", "shard", "row")

_OF_ANSWER = ("cut_characters", generated.VERDICT, generated.LOG_PROBABILITY)


def read(run: Run, parts: Iterable[str], version: str) -> Iterator[dict[str, Any]]:
    """All pairs of some parts, rows of ``export.SCHEMA`` with their ``age``, part by part.

    Args:
        run: whose they are.
        parts: of the difference set.
        version: that the pairs come with.
    """
    provenance = {
        "prompt_digest": run.plan.prompts["answer"].digest,
        "prompts": [f"{name}@{prompt.version}" for name, prompt in run.plan.prompts.items()],
        "model": model_name(run),
        "version": version,
        # Behind all versions of the line.
        "age": 0 if run.plan.base is None else len(run.plan.base.position),
    }
    for part in parts:
        answers = generated.kept_rows(run, "answer", part)
        documents = {row["doc_id"]: row for row in selected.documents(run, part, [*_OF_DOCUMENT, "ratio"])}
        scores = {row["question_id"]: row for row in generated.kept_rows(run, "score", part)}
        for row in answers:
            document, score = documents[row["doc_id"]], scores[row["question_id"]]
            yield {
                "messages": _messages(row["question"], row["answer"]),
                "origin": "aitp",
                "pair_id": row["pair_id"],
                "density_ratio": document["ratio"],
                # Answers of earlier releases do not say it.
                **{name: row.get(name) for name in _OF_ANSWER},
                **{name: document[name] for name in _OF_DOCUMENT},
                **{name: score[name] for name in ("quality", "difficulty")},
                **provenance,
            }


def model_name(run: Run) -> str:
    """The model that has written the pairs, with the beginning of its identity."""
    return f"{run.config.engine.label}#{run.plan.engine_identity[:12]}"


def _messages(question: str, answer: str) -> list[Turn]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
