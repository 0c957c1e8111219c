"""doctor: what this machine has, what each stage will use, what is missing, and a self-test.

Every probe has a time limit, and one that fails hides no other. Nothing is left behind:
the self-test writes into the storage in a folder of its own, and removes it.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aitp_tasks.config import Require, RunConfig
from aitp_tasks.config.engine import gpus as gpus_of
from aitp_tasks.errors import EXIT_CODE, InputError
from aitp_tasks.machine import devices
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.tools.doctor import bounded, gpus, machine, packages, stages, trials
from aitp_tasks.tools.doctor.finding import Finding, Level, exit_code, table

#: What reckons with models imports their libraries first.
_STAGES_SECONDS = 120.0


def execute(
    path: Path | None = None, overrides: Sequence[str] = (), trying: bool = True, as_json: bool = False
) -> dict[str, Any]:
    """Look at this machine, and print what is found to standard error.

    Args:
        path: of a configuration; without, nothing is said of stages and models.
        overrides: of its settings.
        trying: make the self-test, too.
        as_json: have all findings in the result, and print no table.

    Returns:
        How many findings there are of each level, and what the process ends with: the code of the worst.

    Raises:
        InputError: overrides are given without a configuration.
    """
    if overrides and path is None:
        raise InputError(f"--set {overrides[0]} is given without --config: give the configuration")
    watch = Stopwatch()
    config, findings = _configured(path, overrides)
    findings += _looked_at(config)
    if config is not None:
        devices.demand(config.devices.require)
        findings += bounded.run("stages", partial(_list, config), _STAGES_SECONDS)
    if trying:
        findings += trials.run(config)
    if not as_json:
        sys.stderr.write(table(findings))
    counts = {level.name.lower(): sum(one.level is level for one in findings) for level in Level}
    told = {"findings": [finding.told() for finding in findings]} if as_json else {}
    return {"stage": "doctor", **counts, **told, "seconds": watch.seconds(), EXIT_CODE: exit_code(findings)}


def _configured(path: Path | None, overrides: Sequence[str]) -> tuple[RunConfig | None, list[Finding]]:
    """The configuration, if one is named and can be read."""
    if path is None:
        return None, []
    try:
        return RunConfig.load(path, overrides), []
    except InputError as error:
        return None, [Finding("configuration", Level.WRONG, str(error))]


def _list(config: RunConfig) -> list[Finding]:
    return list(stages.found(config))


def _looked_at(config: RunConfig | None) -> list[Finding]:
    """What this machine has, whatever the configuration; one probe after the other."""
    required = config.devices.require if config else Require.AUTO
    on_gpus = required is not Require.CPU and devices.built_for_gpus()
    spread = config is not None and max(config.finetune.processes, gpus_of(config.engine.engine_args)) > 1
    probes: list[tuple[str, bounded.Probe]] = [
        ("processors", lambda: list(machine.processors_found())),
        ("memory", lambda: list(machine.memory_found())),
        ("shared memory", lambda: list(machine.shared_memory_found(spread))),
        *((f"disk: {name}", partial(_disk, name)) for name in machine.places()),
        ("GPUs", lambda: list(gpus.found(required))),
        *([("leases", lambda: list(gpus.leases_found()))] if required is not Require.CPU else []),
        ("compilers", lambda: list(machine.compilers_found(on_gpus))),
        ("packages", lambda: list(packages.found())),
    ]
    if not on_gpus:
        probes.append(("preloaded", lambda: list(packages.preloaded_found())))
    return [finding for about, probe in probes for finding in bounded.run(about, probe)]


def _disk(name: str) -> list[Finding]:
    return list(machine.disk_found(name))
