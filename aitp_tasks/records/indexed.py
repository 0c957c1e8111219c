"""What merge and index have left: the SFT set's index and the corpus's, and what encodes the corpus."""

from collections.abc import Mapping

from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

#: The stage that builds the index of each role.
STAGES = {"sft": "merge", "corpus": "index"}
_QUANTISER = "corpus_quantiser"


def outputs(role: str, built: Manifest) -> dict[str, str]:
    """What a stage's manifest keeps of an index that it has built."""
    return {f"{role}_{name}": key for name, key in built.outputs.items()}


def keys(run: Run, role: str) -> Mapping[str, str]:
    """Keys of the index of a run's ``corpus`` or ``sft`` set, as ``outputs`` has named them.

    Raises:
        InputError: its stage has not been run.
    """
    return run.require_manifest(STAGES[role]).outputs


def quantiser_output(key: str | None) -> dict[str, str]:
    """What merge's manifest keeps of the corpus's quantiser, where there is one."""
    return {} if key is None else {_QUANTISER: key}


def quantiser_key(run: Run) -> str | None:
    """Key of what encodes the corpus's vectors; None where its index is exact.

    Raises:
        InputError: merge has not been run.
    """
    return run.require_manifest("merge").outputs.get(_QUANTISER)
