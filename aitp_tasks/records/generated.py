"""What rewrite, score and answer have left: a row for each question or answer, kept or not.

A part that somebody has given up has a note, ``given-up/<part>.json``, until its answers
are there after all.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from aitp_tasks.records import tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

#: The prompt stages, in their order.
STAGES = ("rewrite", "score", "answer")
#: Columns of answers: what a judge says of one, and its mean log-probability under the base model.
VERDICT, LOG_PROBABILITY = "faithfulness", "answer_log_probability"
#: What the reason begins with for which a judge's verdict leaves an answer out.
JUDGED = "judged_"
TOKENS = "tokens"
_TOKENS_SCHEMA = pa.schema([("doc_id", pa.string()), (TOKENS, pa.int64())])
_GIVEN_UP = "given-up"


def part_manifest(run: Run, stage: str, part: str) -> Manifest:
    """The manifest of one part of a stage.

    Raises:
        InputError: the part has not been done.
    """
    return run.require_manifest(stage, part, what=f"{stage} of {part}")


def table(run: Run, stage: str, part: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of one part of a stage, those that a gate has left out among them.

    Raises:
        InputError: the part has not been done.
    """
    return tables.read(run.storage, part_manifest(run, stage, part).output("rows"), columns)


def rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """The same as dictionaries."""
    found: list[dict[str, Any]] = table(run, stage, part).to_pylist()
    return found


def kept_rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """Those that no gate has left out."""
    return [row for row in rows(run, stage, part) if row["kept"]]


def unfaithful_rows(run: Run, parts: Iterable[str]) -> list[dict[str, Any]]:
    """The answers of some parts that a judge's verdict has left out, in the order of their ids."""
    if run.config.gates.min_faithfulness is None:
        return []
    found = [
        row for part in parts for row in rows(run, "answer", part) if (row["reason"] or "").startswith(JUDGED)
    ]
    return sorted(found, key=lambda row: str(row["pair_id"]))


def tokens(run: Run, stage: str, part: str) -> dict[str, int] | None:
    """Tokens that were generated for each document of a part by a stage; None of an earlier release.

    Raises:
        InputError: the part has not been done.
    """
    done = part_manifest(run, stage, part)
    if TOKENS not in done.outputs:
        return None
    found = tables.read(run.storage, done.output(TOKENS))
    return dict(zip(found["doc_id"].to_pylist(), found[TOKENS].to_pylist(), strict=True))


def write_tokens(run: Run, stage: str, part: str, tokens: Mapping[str, int]) -> dict[str, str]:
    """Write them; the ``outputs`` entry of the part's manifest."""
    table = pa.table({"doc_id": list(tokens), TOKENS: list(tokens.values())}, _TOKENS_SCHEMA)
    return {TOKENS: tables.write(run.storage, run.key(stage, f"{part}-{TOKENS}"), table)}


def give_up(run: Run, part: str, why: str) -> None:
    """Write down that a run is to go on without a part."""
    run.storage.write_if_absent(_given_up_key(run, part), json.dumps({"why": why}).encode())


def given_up(run: Run, part: str) -> str | None:
    """Why a run is to go on without a part; None where nobody has said so."""
    read = run.storage.read_tagged(_given_up_key(run, part))
    return None if read is None else str(json.loads(read.data)["why"])


def without(run: Run) -> dict[str, str]:
    """The parts that a run goes on without, and why: given up, and not answered after all."""
    prefix = run.key(_GIVEN_UP, "")
    named = [info.key.removeprefix(prefix).removesuffix(".json") for info in run.storage.list(prefix)]
    missing = [part for part in named if run.find_manifest(STAGES[-1], part) is None]
    return {part: why for part in missing if (why := given_up(run, part)) is not None}


def parts(run: Run, stage: str) -> Iterator[str]:
    """The parts that a stage has done, in their order.

    Raises:
        InputError: one has not been done, and was not given up.
    """
    left_out = without(run)
    for part in run.parts:
        if part in left_out and run.find_manifest(stage, part) is None:
            continue
        part_manifest(run, stage, part)
        yield part


def _given_up_key(run: Run, part: str) -> str:
    return run.key(_GIVEN_UP, f"{part}.json")
