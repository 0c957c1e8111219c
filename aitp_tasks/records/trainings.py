"""Which run has trained on a dataset version, by the settings that it was trained with.

``datasets/<line>/<version>/trained/<settings>.json`` names the run; written after its
training was committed.
"""

import json

from aitp_tasks.records import digest, manifest, validation, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.storage import Storage

_STAGE = "finetune"


def add(run: Run, version: str) -> None:
    """Write down that a run has trained on a version."""
    run.storage.write_if_absent(_key(run, version), json.dumps({"run": run.prefix}).encode())


def find(run: Run, version: str) -> Manifest | None:
    """The manifest of an earlier training on a version with a run's settings; None where there is none."""
    noted = run.storage.read_tagged(_key(run, version))
    if noted is None:
        return None
    prefix = json.loads(noted.data)["run"]
    return manifest.load(run.storage, f"{prefix}/{_STAGE}/manifest.json")


def runs(storage: Storage, line: str, version: str) -> list[str]:
    """Prefixes of the runs that have trained on a version."""
    found = storage.list(f"{versions.prefix(line, version)}/trained/")
    return [json.loads(storage.read(info.key))["run"] for info in found]


def _key(run: Run, version: str) -> str:
    settings = run.config.identity()[_STAGE]
    # What was validated on has decided when it ended, or which weights were taken.
    validated = validation.identity(run) if run.config.finetune.eval_steps else []
    identity = digest.of_value([run.plan.finetune_identity, settings, *validated])
    return f"{versions.prefix(run.config.assemble.dataset, version)}/trained/{identity}.json"
