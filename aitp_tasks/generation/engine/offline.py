"""vLLM in a process of its own, started anew in place when it dies.

The jobs that were under way when it died are suspects: they are given to the
next engine by halves, until the one that kills it is alone. A job that kills an
engine alone, twice, is refused; all others are answered.
"""

import contextlib
import json
import logging
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aitp_tasks import config
from aitp_tasks.config.engine import Speculation, gpus
from aitp_tasks.errors import TransientError
from aitp_tasks.generation.engine import Completion, Job, dtype, one_at_a_time
from aitp_tasks.generation.engine.failures import failure
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices

log = logging.getLogger(__name__)

COMMAND = [sys.executable, "-m", "aitp_tasks.generation.engine.worker"]
#: Key of the message by which the process says that it can generate.
READY = "ready"
#: Deaths in a row, without any completion, of which the jobs are not the cause.
_HOPELESS = 16
_KILLS = 2
#: Jobs that are handed in before it is known how many run at once.
_WHILE_LOADING = 512
_END_SECONDS = 10.0
#: Of standard error, those that may say why the engine did not start.
_LINES = 400

#: How tokens are guessed, for vLLM.
_SPECULATIVE = {
    # A text is gone on with where its last two tokens or more have stood before.
    Speculation.NGRAM: {
        "method": "ngram",
        "num_speculative_tokens": 5,
        "prompt_lookup_min": 2,
        "prompt_lookup_max": 4,
    },
    Speculation.SUFFIX: {"method": "suffix"},
}

_Message = dict[str, Any]


class OfflineEngine:
    """An engine that lives as long as its context."""

    def __init__(self, settings: config.Engine, model: str, seeded: bool = False) -> None:
        """Start the engine; it loads while the first jobs are prepared."""
        devices.lease(gpus(settings.engine_args), "engine.engine_args")
        self._settings = settings
        self._arguments = _arguments(settings, model, seeded)
        log.info(
            "engine dtype=%s max_num_seqs=%s",
            *(self._arguments.get(name, "by itself") for name in ("dtype", "max_num_seqs")),
        )
        self.load_seconds = 0.0
        self.restarts = 0
        #: Jobs that the process may have: those that run, and as many again; None while it loads.
        self._at_most: int | None = None
        self._jobs: dict[str, Job] = {}
        self._held: list[list[Job]] = []
        self._kills: dict[str, int] = {}
        self._deaths = 0
        self._start()

    @property
    def room(self) -> int:
        """As many again stand by as run; none while it is sought who kills the engine."""
        if self._held:
            return 0
        if self._at_most is None and self.restarts:
            return 0 if self._jobs else 1
        return max((self._at_most or _WHILE_LOADING) - len(self._jobs), 0)

    def submit(self, job: Job) -> None:
        """Hand in a job."""
        self._jobs[job.id] = job
        self._send({name: value for name, value in asdict(job).items() if name != "content"})

    def finished(self) -> list[tuple[str, Completion | Refusal]]:
        """What is finished, at least one; see ``Engine.finished``."""
        while self._jobs:
            found: list[tuple[str, Completion | Refusal]] = []
            for message in self._messages():
                found += self._outcomes(message)
            if not self._jobs and self._held:
                self._next_suspects()
            if found:
                return found
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _messages(self) -> list[_Message | None]:
        """Waits for one; then all that are there. None means that the process has ended."""
        found = [self._replies.get()]
        while found[-1] is not None and not self._replies.empty():
            found.append(self._replies.get())
        return found

    def _outcomes(self, message: _Message | None) -> list[tuple[str, Completion | Refusal]]:
        if message is None:
            return self._died()
        if READY in message:
            self._at_most = 2 * int(message[READY])
            self.load_seconds += time.monotonic() - self._started
            return []
        if "error" in message:
            # What its processes have said is heard when they have ended.
            self._end()
            self._hearing.join(_END_SECONDS)
            raise failure(self._settings.model, message.pop("error"), self._heard, **message)
        job = self._jobs.pop(message.pop("id"))
        self._deaths = 0
        if "refused" in message:
            return [(job.id, Refusal("not_servable", message["refused"]))]
        return [(job.id, Completion(**message))]

    def _died(self) -> list[tuple[str, Completion | Refusal]]:
        """Start anew, with the half of the jobs that were under way."""
        self._end()
        code = self._process.returncode
        self._deaths += 1
        jobs = list(self._jobs.values())
        self._jobs = {}
        # Jobs are run in their order: what stood by has nothing to do with it.
        suspects, standing_by = jobs[: self._at_most], jobs[self._at_most or len(jobs) :]
        log.warning("the engine died (exit code %d) with %d requests under way", code, len(suspects))
        if self._at_most is None or self._deaths > _HOPELESS:
            raise TransientError(
                f"the engine died {self._deaths} times in a row (exit code {code}): see the log above; "
                "finished responses are kept"
            )
        self.restarts += 1
        refused: list[tuple[str, Completion | Refusal]] = []
        if len(suspects) == 1:
            (job,) = suspects
            self._kills[job.id] = self._kills.get(job.id, 0) + 1
            if self._kills[job.id] >= _KILLS:
                message = f"the engine died {_KILLS} times while it worked on this request alone"
                refused = [(job.id, Refusal("kills_engine", message))]
                suspects = []
        self._start()
        middle = math.ceil(len(suspects) / 2)
        self._held += [some for some in (standing_by, suspects[middle:], suspects[:middle]) if some]
        if self._held:
            self._next_suspects()
        return refused

    def _next_suspects(self) -> None:
        for job in self._held.pop():
            self.submit(job)

    def _start(self) -> None:
        self._started = time.monotonic()
        self._at_most = None
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(self._settings),
            # vLLM's own processes belong to it; they must not outlive it.
            process_group=0,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._heard: deque[str] = deque(maxlen=_LINES)
        self._hearing = threading.Thread(target=_hear, args=(self._process, self._heard), daemon=True)
        self._hearing.start()
        self._replies: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._replies), daemon=True).start()
        # vLLM's own processes hold the pipe that it speaks through: without it, nothing else ends them.
        threading.Thread(target=_end_group_after, args=(self._process,), daemon=True).start()
        self._send({"arguments": self._arguments, "template_args": self._settings.chat_template_args})

    def _send(self, message: _Message) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:
            # It has died; whoever listens will say so.
            log.debug("the engine takes no message any more")

    def _end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        _end_group_after(self._process)


def _end_group_after(process: "subprocess.Popen[str]") -> None:
    """When a process has ended, end all that it has started."""
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _listen(process: "subprocess.Popen[str]", replies: "queue.SimpleQueue[_Message | None]") -> None:
    assert process.stdout is not None
    try:
        with process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):
                    replies.put(json.loads(line))
    finally:
        replies.put(None)


def _hear(process: "subprocess.Popen[str]", heard: deque[str]) -> None:
    """Hand on what a process and its own say on standard error; the last lines are kept."""
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            sys.stderr.write(line)
            heard.append(line)


def _arguments(settings: config.Engine, model: str, seeded: bool = False) -> dict[str, Any]:
    """What ``vllm.LLM`` is made with."""
    # The schema is enforced behind what this parser takes for thinking.
    thinking = {"reasoning_parser": settings.reasoning_parser} if settings.reasoning_parser else {}
    return {
        "model": model,
        "revision": settings.revision if settings.on_hub else None,
        "max_model_len": settings.max_model_len,
        # Small models fill JSON with newlines up to the limit when white space is free.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True, **thinking},
        **({"seed": 0} | ({} if devices.visible() else {"distributed_executor_backend": "uni"})),
        **settings.engine_args,
        **({"speculative_config": _SPECULATIVE[settings.speculation]} if settings.speculation else {}),
        **({"dtype": computed_in} if (computed_in := dtype(settings)) else {}),
        **(_in_one_piece(settings) if seeded else {}),
        **_alone(settings),
    }


def _in_one_piece(settings: config.Engine) -> dict[str, Any]:
    """What keeps prompts whole: with chunks, vLLM's CPU engine dies of a request's seed."""
    if devices.visible():
        return {}
    given = settings.engine_args.get("max_num_batched_tokens")
    wide = {"max_num_batched_tokens": max(given, settings.max_model_len)} if isinstance(given, int) else {}
    return {"enable_chunked_prefill": False, **wide}


def _alone(settings: config.Engine) -> dict[str, Any]:
    """What keeps requests out of each other's batches, whatever the engine arguments are."""
    if not one_at_a_time(settings, bool(devices.visible())):
        return {}
    # In one piece, for the seeds.
    return {
        "max_num_seqs": 1,
        "max_num_batched_tokens": settings.max_model_len,
        "enable_prefix_caching": False,
    }


def _environment(settings: config.Engine) -> dict[str, str]:
    """What vLLM reads when it is imported; what the user has set stays, but where a setting decides it."""
    values = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if not settings.on_hub:
        values["HF_HUB_OFFLINE"] = "1"
    decided = {}
    if devices.visible():
        # Programs that come as packages, such as ninja, lie beside Python, which need not be on PATH.
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        decided = {"PATH": programs} | ({"VLLM_BATCH_INVARIANT": "1"} if settings.deterministic else {})
        if not _compiles_cuda(programs):
            # Its sampler would be compiled as the engine starts; vLLM's own does as well.
            values["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    else:
        values |= {
            # Engine and worker in one process: two imports of torch less at every start.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM keeps one core back by itself.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
            # Threads that wait for each other leave the processor to whoever else is busy.
            "OMP_WAIT_POLICY": "passive",
        }
    return values | os.environ | decided


def _compiles_cuda(programs: str) -> bool:
    """Whether what compiles CUDA kernels is on a search path: nvcc, or in CUDA_HOME, and ninja."""
    toolkit = os.environ.get("CUDA_HOME")
    where = os.pathsep.join([programs, *([f"{toolkit}/bin"] if toolkit else [])])
    return all(shutil.which(program, path=where) for program in ("nvcc", "ninja"))
