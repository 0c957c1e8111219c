"""The one door to vLLM: prompts in, completions out, one process, no server.

The engine lives in the stage's own process, so that ending the process gives
the device's memory back. Nothing of it listens beyond loopback.
"""

import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aitp_tasks import config, devices, models
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.prompts import control_tokens, fill, neutralise
from aitp_tasks.run import FrozenPrompt

log = logging.getLogger(__name__)

#: Characters a token may stand for before the tokenizer is spared the rest of a text.
_CHARACTERS_PER_TOKEN = 64


@dataclass(frozen=True)
class Completion:
    """One response of the engine."""

    text: str
    finish_reason: str  # "stop" or "length"
    prompt_tokens: int
    generated_tokens: int


class Engine:
    """A loaded model that answers chat prompts under a JSON schema."""

    def __init__(self, settings: config.Engine) -> None:
        """Load the model.

        Raises:
            InputError: the model cannot be loaded, has no chat template, or an
                engine argument is wrong.
            TransientError: no GPU became free, or the model was replaced while it was
                copied from storage.
        """
        devices.lease(gpus_wanted(settings), "engine.engine_args")
        _prepare_process(settings)
        model = models.local(settings)
        from vllm import LLM

        self._max_model_len = settings.max_model_len
        try:
            with _without_llvmlite():
                self._llm = LLM(
                    model=model,
                    revision=settings.revision if settings.on_hub else None,
                    max_model_len=settings.max_model_len,
                    # Small models fill JSON with newlines up to the limit when white space is free.
                    structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
                    **({"seed": 0} | _device_arguments() | settings.engine_args),
                )
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"engine model {settings.model} cannot be loaded: {_one_line(error)}") from error
        self._tokenizer = self._llm.get_tokenizer()
        self._control_tokens = control_tokens(self._tokenizer)
        if not self._tokenizer.chat_template:
            raise InputError(
                f"model {settings.model} has no chat template: choose an instruction-tuned model"
            )

    def complete(self, prompt: FrozenPrompt, arguments: Sequence[dict[str, str]]) -> list[Completion]:
        """Fill a prompt with each set of arguments and generate.

        A ``text`` too long for the context is cut at its end.

        Args:
            prompt: template, response schema and sampling.
            arguments: for each request, the values of the template's placeholders.

        Raises:
            ValueError: a request cannot be served.
            TransientError: the engine died.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        # No seed here: with one, vLLM's CPU engine dies on a chunked prefill.
        sampling = SamplingParams(
            **prompt.sampling,
            structured_outputs=StructuredOutputsParams(json=prompt.output_schema),
        )
        conversations = [[{"role": "user", "content": self._fit(prompt, values)}] for values in arguments]
        try:
            outputs = self._llm.chat(conversations, sampling, use_tqdm=False)
        except EngineDeadError as error:
            raise TransientError(
                f"the engine died: {_one_line(error)}; finished responses are kept"
            ) from error
        return [
            Completion(
                text=output.outputs[0].text,
                finish_reason=str(output.outputs[0].finish_reason),
                prompt_tokens=len(output.prompt_token_ids or []),
                generated_tokens=len(output.outputs[0].token_ids),
            )
            for output in outputs
        ]

    def _fit(self, prompt: FrozenPrompt, values: dict[str, str]) -> str:
        """The filled prompt, its ``text`` cut so that prompt and response fit the context."""
        values = {name: neutralise(value, self._control_tokens) for name, value in values.items()}
        if "text" in values:
            frame = fill(prompt, values | {"text": ""})
            rendered = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": frame}], add_generation_prompt=True, tokenize=False
            )
            # A few tokens for what the cut text and its neighbours may merge into.
            taken = int(prompt.sampling["max_tokens"]) + len(self._tokenizer.encode(rendered)) + 8
            values["text"] = self._cut(values["text"], self._max_model_len - taken)
        return fill(prompt, values)

    def _cut(self, text: str, room: int) -> str:
        if room <= 0:
            raise ValueError(f"max_model_len={self._max_model_len} leaves no room for the document: raise it")
        encoded = self._tokenizer(
            text[: room * _CHARACTERS_PER_TOKEN], add_special_tokens=False, return_offsets_mapping=True
        )
        offsets = encoded["offset_mapping"]
        return text if len(offsets) <= room else text[: offsets[room - 1][1]]


def gpus_wanted(settings: config.Engine) -> int:
    """How many GPUs the engine arguments spread the model over."""
    kinds = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    values = (settings.engine_args.get(kind) for kind in kinds)
    # Whatever is no number, vLLM refuses itself.
    return math.prod(value for value in values if isinstance(value, int) and value > 0)


def _prepare_process(settings: config.Engine) -> None:
    """Environment that vLLM reads when it is imported; what the user has set stays."""
    import torch

    values = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if not settings.on_hub:
        values["HF_HUB_OFFLINE"] = "1"
    if not torch.cuda.is_available():
        values |= {
            # Engine and worker in this process: two imports of torch less at every start.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM keeps one core back by itself.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
        }
    for name, value in values.items():
        os.environ.setdefault(name, value)


@contextmanager
def _without_llvmlite() -> Iterator[None]:
    """Keep llvmlite's library handle from vLLM while it loads.

    vLLM reads ``__dict__`` of every object in every loaded module and expects a
    mapping; llvmlite's handle (there once numba is) answers any name with a function.
    """
    name = "llvmlite.binding.ffi"
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module:
            sys.modules[name] = module


def _device_arguments() -> dict[str, Any]:
    import torch

    return {} if torch.cuda.is_available() else {"distributed_executor_backend": "uni"}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
