"""Runs a probe so that it can neither take for ever nor take others with it."""

import queue
import threading
import time
from collections.abc import Callable, Sequence

from aitp_tasks.errors import AitpError, ExitCode
from aitp_tasks.tools.doctor.finding import Finding, Level

Probe = Callable[[], Sequence[Finding]]
#: For whatever only looks at this machine.
SECONDS = 20.0


def run(about: str, probe: Probe, seconds: float = SECONDS) -> list[Finding]:
    """What a probe finds, or that it failed, or did not end in time: then it is left behind in its thread."""
    found: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
    start = time.monotonic()
    threading.Thread(target=lambda: found.put(_tried(about, probe)), daemon=True, name=about).start()
    try:
        findings = found.get(timeout=seconds)
    except queue.Empty:
        remedy = "look at what it asks: a driver, a mount, a service that hangs"
        findings = [Finding(about, Level.WRONG, f"no answer in {seconds:.0f} s", remedy)]
    # What one probe finds is found together.
    return [finding.timed(time.monotonic() - start) for finding in findings[:1]] + findings[1:]


def _tried(about: str, probe: Probe) -> list[Finding]:
    try:
        return list(probe())
    except AitpError as error:
        return [Finding(about, level_of(error), str(error))]
    except Exception as error:
        # One that fails hides none of the others, whatever it has met.
        said = f"could not be looked at: {type(error).__name__}: {error}"
        return [Finding(about, Level.WRONG, said, "report it, with this line")]


def level_of(error: AitpError) -> Level:
    """How bad an error is that says whether a retry helps."""
    return Level.PASSING if error.exit_code is ExitCode.TRANSIENT else Level.WRONG
