"""The self-test: each trial in a process of its own, which is ended with all that it has started.

So one that crashes, hangs or takes all memory is a finding and nothing else, and what it
leased is free when it ends.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from aitp_tasks.config import RunConfig
from aitp_tasks.machine import processes
from aitp_tasks.tools.doctor import stages
from aitp_tasks.tools.doctor.finding import Finding, Level

_COMMAND = [sys.executable, "-m", "aitp_tasks.tools.doctor.trial"]
#: Seconds that each may take; an engine with a large model is minutes in loading.
LIMITS = {"storage": 30.0, "densities": 60.0, "embed": 180.0, "engine": 600.0}
_LINES = 400


def run(config: RunConfig | None) -> list[Finding]:
    """All trials, one after the other; those that need a configuration only with one."""
    if config is None:
        why = "not tried without --config"
        untried = [Finding(f"try {name}", Level.OK, why) for name in LIMITS if name != "densities"]
        return [attempt("densities", None), *untried]
    return [_skipped(name, config) or attempt(name, config) for name in LIMITS]


def attempt(name: str, config: RunConfig | None) -> Finding:
    """What one trial finds, within its time."""
    about, start = f"try {name}", time.monotonic()
    handed = config.model_dump_json() if config is not None else ""
    with processes.lifeline() as lifeline:
        child = subprocess.Popen(
            [*_COMMAND, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {processes.LIFELINE: str(lifeline)},
            pass_fds=(lifeline,),
            process_group=0,
        )
        try:
            out, err = child.communicate(handed, timeout=LIMITS[name])
            finding = _read(about, child.returncode, out, err)
        except subprocess.TimeoutExpired:
            finding = Finding(about, Level.PASSING, f"no answer in {LIMITS[name]:.0f} s", _late(name))
        finally:
            _end(child)
    return finding.timed(time.monotonic() - start)


def _skipped(name: str, config: RunConfig) -> Finding | None:
    """Why a trial is not made; None where it is."""
    model = {"embed": config.encoder, "engine": config.engine}.get(name)
    if model is None or getattr(model, "endpoint", None) or stages.at_hand(model):
        return None
    return Finding(f"try {name}", Level.NOTE, f"not tried: {model.label} is not on this machine yet")


def _end(child: "subprocess.Popen[str]") -> None:
    """End it and its own, and hear no more of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=5.0)


def _read(about: str, code: int, out: str, err: str) -> Finding:
    """Its last line of output, or what it has ended with."""
    lines = out.strip().splitlines()
    with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
        told = json.loads(lines[-1])
        return Finding(about, Level[told["level"]], told["says"], told["remedy"])
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    said = next((line for line in reversed(err.strip().splitlines()[-_LINES:]) if line.strip()), "")
    remedy = "SIGKILL: see that there is memory; SIGILL: a package is built for other processors"
    return Finding(about, Level.WRONG, f"{how}: {said}", remedy if code < 0 else "")


def _late(name: str) -> str:
    if name == "storage":
        return "see that the store is up and can be reached from here (AWS_ENDPOINT_URL, proxy, firewall)"
    return "see what else is at work on this machine, then try again"
