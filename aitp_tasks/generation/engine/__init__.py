"""The door to whatever generates: jobs in, completions out, in the order in which they finish.

Two kinds: ``offline`` (vLLM in a process of its own, started anew when it dies)
and ``endpoint`` (an OpenAI-compatible server of the user's own). ``prompting``
fills and cuts the prompts for both, and ``encoding`` makes tokens of them; ``worker``
is the offline engine's process, ``reasoning`` tells there what a model thinks from
what it responds.
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from aitp_tasks import config
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices, processors

#: In what an engine may compute that is not told: as vLLM chooses, or as the processors can.
_NOT_BFLOAT16 = "not bfloat16"
DTYPES = (None, "bfloat16", "float32", _NOT_BFLOAT16)
#: vLLM's own default, and that on large GPUs.
_AT_ONCE, _AT_ONCE_ON_GPUS = 256, 1024
#: A generated token that is a number, and the numbers that could have stood there: text and log-probability.
NumberToken = tuple[str, list[tuple[str, float]]]


@dataclass(frozen=True)
class Job:
    """One prompt to answer.

    Attributes:
        id: the caller's own.
        content: the filled prompt, what the user says.
        token_ids: the same within the model's chat template.
        schema: JSON schema of the response.
        sampling: ``max_tokens``, ``temperature`` and so on; maybe a ``seed``.
        alternatives: of each number, so many alternatives are wanted.
    """

    id: str
    content: str
    token_ids: list[int]
    schema: dict[str, Any]
    sampling: dict[str, Any]
    alternatives: int = 0


@dataclass(frozen=True)
class Completion:
    """One response of an engine.

    Attributes:
        finish_reason: ``stop``, or ``length`` where it was cut.
        cached_tokens: of the prompt, those that another prompt had had before.
        numbers: its number tokens with their alternatives, where these were wanted.
        reasoning: what the model thought before it, where that is told apart.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int = 0
    numbers: list[NumberToken] = field(default_factory=list)
    reasoning: str = ""


class Engine(Protocol):
    """What generates.

    Attributes:
        load_seconds: spent until it could generate, restarts included.
        restarts: how often it was started anew.
    """

    load_seconds: float
    restarts: int

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""

    def submit(self, job: Job) -> None:
        """Hand in a job; only while there is room."""

    def finished(self) -> list[tuple[str, Completion | Refusal]]:
        """Wait until jobs are finished; ids and outcomes. Empty only when none is under way.

        Raises:
            InputError: the engine can never work.
            TransientError: it does not work now.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_engine(settings: config.Engine, model: str, seeded: bool = False) -> Engine:
    """The engine that the configuration names.

    Args:
        settings: of the engine.
        model: folder or hub name of the model.
        seeded: whether jobs will have seeds in their sampling.
    """
    if settings.endpoint is not None:
        from aitp_tasks.generation.engine.endpoint import EndpointEngine

        return EndpointEngine(settings)
    from aitp_tasks.generation.engine.offline import OfflineEngine

    return OfflineEngine(settings, model, seeded)


def dtype(settings: config.Engine) -> str | None:
    """What the engine computes in on this machine; None where vLLM chooses, by the model.

    vLLM chooses on GPUs, and a server is another machine. Processors are told what they compute in:
    most have no bfloat16, and emulate it several times slower.
    """
    if settings.dtype is not None or settings.endpoint is not None or devices.visible():
        return settings.dtype
    return "bfloat16" if processors.compute_bfloat16() else "float32"


def numbers(settings: config.Engine) -> str | None:
    """What of this machine decides the numbers behind a response: one of ``DTYPES``, or what is told.

    On GPUs without bfloat16 vLLM takes what it finds best for the model in its place.
    """
    computed_in = dtype(settings)
    if (
        computed_in is None
        and settings.endpoint is None
        and not all(gpu.bfloat16 for gpu in devices.visible())
    ):
        return _NOT_BFLOAT16
    return computed_in


def one_at_a_time(settings: config.Engine, on_gpus: bool) -> bool:
    """Whether requests are not to share a batch: on processors, it would decide how they are rounded."""
    return settings.deterministic and not on_gpus


def requests_at_once(settings: config.Engine, on_gpus: bool) -> int:
    """How many requests the engine works on at the same time, where there are so many."""
    if settings.endpoint is not None:
        return settings.endpoint.concurrency
    if one_at_a_time(settings, on_gpus):
        return 1
    given = settings.engine_args.get("max_num_seqs")
    if isinstance(given, int) and given > 0:
        return given
    return _AT_ONCE_ON_GPUS if on_gpus else _AT_ONCE
