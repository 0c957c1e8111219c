"""Why an engine cannot start: vLLM says it in a process of its own, and above it only that it failed."""

import re
from collections.abc import Iterable

from aitp_tasks.errors import AitpError, InputError, TransientError

#: How vLLM says that one of its processes knows the cause.
_ELSEWHERE = re.compile(
    r"root cause above|WorkerProc initialization failed|Worker failed with error", re.IGNORECASE
)
#: The last line of a traceback, behind whatever a process writes before its lines.
_RAISED = re.compile(r"(?:^|\s)((?:\w+\.)*\w+(?:Error|Exception)): (.+)")
#: Of what is wrong with the input where vLLM itself raises it.
_WRONG = {"ValueError", "TypeError", "NotImplementedError", "ValidationError", "FileNotFoundError"}
#: What no retry mends, by what is said of it.
_REMEDIES = {
    r"KV cache (?:is needed|memory)|for the cache blocks": "lower engine.max_model_len, raise "
    "engine.engine_args.gpu_memory_utilization, or spread the model over more GPUs (tensor_parallel_size)",
    r"Free memory on device": "something else holds memory of the device: end it, or lower "
    "engine.engine_args.gpu_memory_utilization",
    r"out of memory|OutOfMemory": "the model does not fit: spread it over more GPUs "
    "(engine.engine_args.tensor_parallel_size), take a smaller or quantised one, or lower "
    "engine.max_model_len",
    r"find C compiler|Python\.h": "kernels are compiled here: install gcc and the headers of Python (Debian: "
    "gcc, python3-dev)",
    r"no kernel image|compute capability": "this GPU is older, or of another kind, than a package, the "
    "model's format or its dtype wants: take another GPU or model, or set engine.engine_args.dtype",
    r"nvcc|CUDA_HOME": "kernels are compiled here: install the CUDA toolkit and put nvcc on PATH, or set "
    "VLLM_USE_FLASHINFER_SAMPLER=0",
}
#: Of a line of a library.
_CHARACTERS = 2000


def failure(model: str, error: str, heard: Iterable[str], *, passing: bool, wrong: bool) -> AitpError:
    """What to raise for an engine that has not started.

    Args:
        model: its name, as it is configured.
        error: what vLLM has raised.
        heard: the last lines of standard error.
        passing: whether the error is known to pass.
        wrong: whether it is of a kind that says that the input is wrong.
    """
    if _ELSEWHERE.search(error):
        found = [raised for line in heard if (raised := _RAISED.search(line)) and not _ELSEWHERE.search(line)]
        if found:
            kind, error = found[-1][1].rpartition(".")[2], f"{found[-1][1]}: {found[-1][2]}"[:_CHARACTERS]
            wrong = kind in _WRONG
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, error):
            return InputError(f"engine model {model} cannot be loaded: {error}; {remedy}")
    kinds: type[AitpError] = InputError if wrong and not passing else TransientError
    return kinds(f"engine model {model} cannot be loaded: {error}")
