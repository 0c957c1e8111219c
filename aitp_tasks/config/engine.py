"""``engine``: the model that generates, and where it runs."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from aitp_tasks.config.endpoint import Endpoint
from aitp_tasks.config.model import Model

#: Arguments of ``vllm.LLM`` that follow from other settings, and of a chat template that AITP sets itself.
_RESERVED = {
    "engine_args": {
        "chat_template",
        "max_model_len",
        "model",
        "reasoning_parser",
        "revision",
        "structured_outputs_config",
    },
    "chat_template_args": {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "truncation",
    },
}
#: The dtype by which vLLM is left to choose it.
_BY_ITSELF = "auto"
#: Those that a response does not depend on, up to rounding: how the work is spread and stored.
_NEUTRAL_ARGUMENTS = {
    "block_size",
    "cpu_offload_gb",
    "data_parallel_size",
    "disable_log_stats",
    "distributed_executor_backend",
    "download_dir",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "tensor_parallel_size",
}


#: Arguments whose product is over how many GPUs a model is spread; data parallelism would copy it.
_SPREADING = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size")
_COPYING = "data_parallel_size"
#: Machines, which would wait for each other.
_MACHINES = "nnodes"
_SPECULATIVE = "speculative_config"


class Speculation(StrEnum):
    """How the engine guesses tokens ahead, without a second model."""

    NGRAM = "ngram"
    SUFFIX = "suffix"


def gpus(engine_args: Mapping[str, Any]) -> int:
    """How many GPUs the engine arguments spread the model over."""
    return math.prod(_number(engine_args.get(kind)) for kind in _SPREADING)


def _number(value: Any) -> int:
    # Whatever is no number, plan refuses.
    return value if isinstance(value, int) and value > 0 else 1


class Engine(Model):
    """The vLLM engine of the three prompt stages."""

    max_model_len: int = Field(
        4096, ge=256, title="Context length", description="Prompt and response together, in tokens."
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, title="Engine arguments", description="Passed to vllm.LLM as they are."
    )
    requests_per_flush: int = Field(
        256,
        ge=1,
        title="Requests per flush",
        description="Finished responses are made durable each second, in groups of at most this size.",
    )
    chat_template: str | None = Field(
        None, title="Chat template", description="Jinja file; by default the model's own."
    )
    chat_template_args: dict[str, Any] = Field(
        default_factory=dict,
        title="Chat template arguments",
        description="Passed to the chat template, e.g. enable_thinking: false.",
    )
    reasoning_parser: str | None = Field(
        None,
        title="Reasoning parser",
        description="vLLM's name for how the model marks its thinking, e.g. qwen3: it thinks first, without "
        "the schema, and that is stored apart from the response. A server has a setting of its own.",
        min_length=1,
    )
    deterministic: bool = Field(
        False,
        title="Deterministic",
        description="No response depends on which others are generated at the same time: on GPUs by vLLM's "
        "batch-invariant mode, on processors one request at a time. Slower.",
    )
    speculation: Speculation | None = Field(
        None,
        title="Speculation",
        description="Guess the next tokens from text that stands in the prompt or the response already, and "
        "check several at once: ngram, or suffix, which needs the package arctic-inference. Decides no "
        "result, up to rounding.",
    )
    endpoint: Endpoint | None = Field(
        None,
        title="Endpoint",
        description="Generate on this server, which has to serve the same model, instead of in the task.",
    )

    @property
    def dtype(self) -> str | None:
        """What the engine is told to compute in; None where that is left to it."""
        given = str(self.engine_args.get("dtype", _BY_ITSELF))
        return None if given == _BY_ITSELF else given

    def generation_identity(self, dtype: str | None = None) -> list[Any]:
        """What decides a response beside model, prompt and request.

        Args:
            dtype: what the engine computes in where it is not told.
        """
        deciding = {
            key: value
            for key, value in self.engine_args.items()
            if key not in _NEUTRAL_ARGUMENTS and (key, value) != ("dtype", _BY_ITSELF)
        }
        if dtype := self.dtype or dtype:
            deciding["dtype"] = dtype
        added = {
            "chat_template_args": self.chat_template_args,
            "reasoning_parser": self.reasoning_parser,
            "deterministic": self.deterministic,
        }
        # Left out while they are not set, as they were not there before.
        set_ones = {name: value for name, value in added.items() if value}
        return [self.max_model_len, deciding, *([set_ones] if set_ones else [])]

    @model_validator(mode="after")
    def _deterministic_in_the_task(self) -> Self:
        if self.deterministic and self.endpoint is not None:
            raise ValueError(
                "deterministic is a matter of the server's: leave engine.deterministic out, and start the "
                "server so (vLLM: VLLM_BATCH_INVARIANT=1)"
            )
        return self

    @model_validator(mode="after")
    def _speculating_in_one_way(self) -> Self:
        if self.speculation is None:
            return self
        chosen = f"speculation={self.speculation.value}"
        if self.endpoint is not None:
            raise ValueError(
                f"{chosen} is a matter of the server's: leave engine.speculation out, and start the server "
                "so (vLLM: --speculative-config)"
            )
        if self.deterministic:
            raise ValueError(
                f"{chosen} checks several tokens at once, which rounds otherwise than one after the other, "
                "and deterministic=true promises the same bytes: leave one of them out"
            )
        if _SPECULATIVE in self.engine_args:
            raise ValueError(f"{chosen} and engine_args.{_SPECULATIVE} are both given: leave one of them out")
        return self

    @model_validator(mode="after")
    def _one_replica(self) -> Self:
        replicas = _number(self.engine_args.get(_COPYING))
        if replicas > 1 and self.endpoint is None:
            raise ValueError(
                f"engine_args.{_COPYING}={replicas} is refused by vLLM within one process: leave it out, "
                "since parts run side by side, as many as there are GPUs; or start a server with it and name "
                "that in engine.endpoint"
            )
        return self

    @field_validator("engine_args")
    @classmethod
    def _counted(cls, value: dict[str, Any]) -> dict[str, Any]:
        # vLLM reads "8" and 8.0 as 8; leases and slots of the pool are counted by whoever reads the file.
        for name in (*_SPREADING, _COPYING, _MACHINES):
            given = value.get(name, 1)
            if type(given) is not int or given < 1:
                raise ValueError(f"{name}={given!r} is no number of 1 or more: write it as one")
        if value.get(_MACHINES, 1) > 1:
            raise ValueError(
                f"{_MACHINES}={value[_MACHINES]} would wait for other machines: leave it out, since each has "
                "parts of its own; or start a server over all of them and name it in engine.endpoint"
            )
        return value

    @field_validator(*_RESERVED)
    @classmethod
    def _nothing_reserved(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        reserved = _RESERVED[str(info.field_name)] & value.keys()
        if reserved:
            kind = str(cls.model_fields[str(info.field_name)].title).lower()
            raise ValueError(f"{sorted(reserved)} are set by AITP and cannot be {kind}: take them out")
        return value
