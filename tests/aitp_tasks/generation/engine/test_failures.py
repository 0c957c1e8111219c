"""Why an engine does not start, from what vLLM says of it in which process."""

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.generation.engine.failures import failure

ABOVE = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
CACHE = (
    "To serve at least one request with the model's max seq len (8192), (0.18 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.00 GiB)."
)
FREE = "Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization"
PREFIX = "(EngineCore pid=71) ERROR 11-26 23:40:01 [core.py:1100] "


@pytest.mark.parametrize(
    ("error", "heard", "wrong", "kind", "told"),
    [
        # In the very process.
        (CACHE, [], True, InputError, "larger than the available KV cache .* lower engine.max_model_len"),
        ("model type x is unknown", [], True, InputError, "model type x is unknown"),
        ("No available memory for the cache blocks. Try", [], True, InputError, "raise engine.engine"),
        ("CUDA error: no kernel image is available", [], False, InputError, "this GPU is older, or of"),
        (
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4",
            *([], True, InputError, "engine.engine_args.dtype"),
        ),
        ("NCCL error: unhandled system error", [], False, TransientError, "NCCL error"),
        ("CUDA out of memory. Tried to allocate 2 GiB", [], False, InputError, "tensor_parallel_size"),
        # In one below.
        (ABOVE, [f"{PREFIX}ValueError: {CACHE}\n"], False, InputError, "To serve .* raise engine"),
        (ABOVE, [f"{PREFIX}ValueError: {FREE}\n"], False, InputError, "3.1/79.2 GiB.* something else holds"),
        (ABOVE, ["torch.OutOfMemoryError: CUDA out of memory.\n"], False, InputError, "does not fit"),
        (ABOVE, [f"{PREFIX}ValueError: no such quantisation\n"], False, InputError, "no such quantisation"),
        (ABOVE, [f"{PREFIX}RuntimeError: Failed to find C compiler.\n"], False, InputError, "install gcc"),
        (ABOVE, ["RuntimeError: fatal error: Python.h: No such file\n"], False, InputError, "headers of"),
        (ABOVE, [f"{PREFIX}RuntimeError: NCCL error: peer gone\n"], False, TransientError, "peer gone"),
        # The cause comes before what follows from it.
        (ABOVE, [f"{PREFIX}ValueError: first\n", f"RuntimeError: {ABOVE}\n"], False, InputError, "first"),
        (
            ABOVE,
            ["Worker ValueError: no head size 7\n", "Exception: WorkerProc initialization failed due to\n"],
            *(False, InputError, "no head size 7"),
        ),
        (
            ABOVE,
            ["Worker ValueError: no room\n", "EngineCore RuntimeError: Worker failed with error 'no room'\n"],
            *(False, InputError, "ValueError: no room"),
        ),
        # Nothing was said.
        (ABOVE, ["INFO loading\n"], False, TransientError, "See root cause above"),
    ],
)  # fmt: skip
def test_the_cause_is_told_with_what_mends_it(
    error: str, heard: list[str], wrong: bool, kind: type[Exception], told: str
) -> None:
    found = failure("m", error, heard, passing=False, wrong=wrong)
    assert type(found) is kind
    with pytest.raises(kind, match=f"engine model m cannot be loaded: .*{told}"):
        raise found


@pytest.mark.parametrize(
    "error",
    ["FlashAttnMLA V1 with FP8 KV cache not yet supported", "Quantized KV cache dtype is unknown"],
)
def test_a_remedy_is_told_where_it_is_one(error: str) -> None:
    """A kind of cache that there is not is no matter of its size."""
    assert "max_model_len" not in str(failure("m", error, [], passing=False, wrong=True))


def test_what_passes_is_no_wrong_input() -> None:
    assert type(failure("m", "no route to host", [], passing=True, wrong=True)) is TransientError
