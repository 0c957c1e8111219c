"""The offline engine's process: vLLM, jobs on standard input, completions on standard output.

Both are lines of JSON. The first line out is ``ready`` with how many jobs run at
a time, or ``error``. The process ends when its input does, and with it all of its
group, which it leads: when the stage ends, however it ends, nothing keeps the device.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from itertools import islice
from typing import Any, TextIO

from aitp_tasks.generation.engine import reasoning
from aitp_tasks.generation.engine.offline import READY
from aitp_tasks.machine import models

#: For vLLM's own processes to end by themselves.
_END_SECONDS = 5.0
#: What the stage has sent, in its order; None when its input has ended.
_Jobs = queue.SimpleQueue[dict[str, Any] | None]


def main() -> None:
    """Load the model that the first line names, then serve."""
    lines, replies = _channels()
    # From the start: jobs are prepared while the engine loads, and the stage may end meanwhile.
    jobs: _Jobs = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, jobs), daemon=True).start()
    first = jobs.get()
    if first is None:
        _end_group()
        return
    from vllm.exceptions import VLLMError

    try:
        server = _Server(first["arguments"], first["template_args"], jobs, replies)
    except (OSError, RuntimeError, TypeError, ValueError, VLLMError) as error:
        wrong = not isinstance(error, RuntimeError) or isinstance(error, VLLMError | NotImplementedError)
        told = {"passing": models.passing(error), "wrong": wrong}
        _send(replies, {"error": " ".join(str(error).split()), **told})
        sys.exit(1)
    # Whoever is gone takes no answer any more.
    with contextlib.suppress(BrokenPipeError):
        server.run()
    _end_group()


def _end_group() -> None:
    """End this process and those that vLLM has started."""
    os.killpg(0, signal.SIGKILL)


def _channels() -> tuple[TextIO, TextIO]:
    """The real standard input and output.

    What libraries print goes to standard error. Processes that vLLM forks close their
    standard input, which would wait for ever for the thread that reads from it here.
    """
    jobs, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return jobs, replies


def _send(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _read(lines: TextIO, jobs: _Jobs) -> None:
    for line in lines:
        jobs.put(json.loads(line))
    # The stage is gone, and with it whoever could read an answer.
    jobs.put(None)
    time.sleep(_END_SECONDS)
    _end_group()


class _Server:
    def __init__(
        self, arguments: dict[str, Any], template_args: dict[str, Any], jobs: _Jobs, replies: TextIO
    ) -> None:
        self._replies = replies
        self._jobs = jobs
        from vllm import LLM

        parser = arguments["structured_outputs_config"].get("reasoning_parser")
        if parser is not None:
            reasoning.require(parser)
        model = LLM(**arguments)
        self._engine: Any = model.llm_engine
        self._reasoning = parser and reasoning.Reasoning(parser, model.get_tokenizer(), template_args)
        scheduler = self._engine.vllm_config.scheduler_config
        _send(replies, {READY: scheduler.max_num_seqs})

    def run(self) -> None:
        """Until the input ends."""
        while self._take():
            for output in self._engine.step():
                if output.finished:
                    _send(self._replies, self._reply(output))
        self._engine.engine_core.shutdown()

    def _take(self) -> bool:
        """Hand all waiting jobs to the engine; wait for one when the engine has none. False at the end."""
        while not self._engine.has_unfinished_requests() or not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                return False
            self._add(job)
        return True

    def _add(self, job: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        try:
            # A seed only where prompts are whole: with one, vLLM's CPU engine dies on a chunked prefill.
            sampling = SamplingParams(
                **job["sampling"],
                structured_outputs=StructuredOutputsParams(json=job["schema"]),
                logprobs=job["alternatives"] or None,
                skip_special_tokens=not self._reasoning,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(job["id"], {"prompt_token_ids": job["token_ids"]}, sampling)
        except (ValueError, TypeError, VLLMError) as error:
            _send(self._replies, {"id": job["id"], "refused": " ".join(str(error).split())[:500]})

    def _reply(self, output: Any) -> dict[str, Any]:
        completion = output.outputs[0]
        prompt, tokens = list(output.prompt_token_ids or ()), list(completion.token_ids)
        said = reasoning.Divided("", completion.text, len(tokens))
        if self._reasoning:
            said = self._reasoning.divided(prompt, completion.text, tokens)
        return {
            "id": output.request_id,
            "text": said.text,
            "reasoning": said.reasoning,
            "finish_reason": str(completion.finish_reason),
            "prompt_tokens": len(prompt),
            "generated_tokens": len(tokens),
            "cached_tokens": output.num_cached_tokens or 0,
            "numbers": _numbers(completion, len(tokens) - said.tokens),
        }


def _numbers(completion: Any, start: int) -> list[tuple[str, list[tuple[str, float]]]]:
    """The tokens from a place on that are numbers, each with the numbers that could have stood there."""
    found = []
    tokens = islice(zip(completion.token_ids, completion.logprobs or (), strict=False), start, None)
    for token, alternatives in tokens:
        text = str(alternatives[token].decoded_token)
        if text.strip().isdigit():
            pairs = ((str(other.decoded_token), float(other.logprob)) for other in alternatives.values())
            found.append((text, [pair for pair in pairs if pair[0].strip().isdigit()]))
    return found


if __name__ == "__main__":
    main()
