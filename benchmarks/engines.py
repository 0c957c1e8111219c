"""Engines for ``rewrite.py``, each in a process of its own.

raw RUN STAGE: ``vllm.LLM.chat`` on the prompts of a stage that has been run.
shareable RUN: what the answers' prompts of documents with two questions have in
common, without an engine.
loop RUN WAY: the published runner's way over the run's documents: batches that are
sent and awaited one after another. WAY "published" has no schema, and reads as the
runner reads; "tolerant" has no schema, and reads as this project reads; "schema" has
the schema too. speculation RUN: the answers' requests on the engine as a stage has it,
with and without guessed tokens. counting STAGE RUN: a stage whose engine writes one byte a generated
token to the file that AITP_COUNTED names.
"""

import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise, product, takewhile
from operator import eq
from pathlib import Path
from typing import Any

import psutil

from aitp_tasks import cli
from aitp_tasks.generation.engine import Completion, Job, offline
from aitp_tasks.generation.engine.prompting import Prompter, Rendered
from aitp_tasks.generation.requests import Parsed, Request, parse
from aitp_tasks.generation.stored import Response
from aitp_tasks.machine import models
from aitp_tasks.records import selected
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, rewrite, score

STAGES = {"rewrite": rewrite.STAGE, "score": score.STAGE, "answer": answer.STAGE}
#: Requests that the published runner sends at a time; its own default is 1.
_BATCH = 32
_SPECULATION_PASSES = 3
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def raw(uri: str, stage: str) -> dict[str, Any]:
    """Tokens and seconds of one stage's prompts, loading left out."""
    run = Run.open(uri)
    prompt = run.plan.prompts[stage]
    rendered = _rendered(run, stage)
    engine = _engine(run)
    sampling = _sampling(prompt, prompt.output_schema, STAGES[stage].alternatives or None)
    start = time.monotonic()
    outputs = engine.chat([_said(one.content) for one in rendered], sampling, use_tqdm=False)
    seconds = time.monotonic() - start
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": round(tokens / seconds, 1)}


def shareable(uri: str) -> dict[str, Any]:
    """The share of their tokens that prompts of two a document have in common with the one before."""
    run = Run.open(uri)
    ids = [request.id for request in answer.STAGE.requests(run, run.parts[0])]
    of_document = Counter(id.partition("-")[0] for id in ids)
    rendered = zip(ids, _rendered(run, "answer"), strict=True)
    prompts = [one.token_ids for id, one in rendered if of_document[id.partition("-")[0]] == 2]
    same = (takewhile(bool, map(eq, before, prompt)) for before, prompt in pairwise(prompts))
    return {"share": round(sum(map(sum, same)) / sum(map(len, prompts)), 4)}


def speculation(uri: str) -> dict[str, Any]:
    """Seconds and responses of the answers, plain and with guessed tokens, in turn."""
    run = Run.open(uri)
    jobs = _answers(run)
    # Of the second pass, no prompt would have to be computed.
    plain_args = {**run.config.engine.engine_args, "enable_prefix_caching": False}
    taken: dict[str, list[float]] = {"plain": [], "guessed": []}
    of_processor: dict[str, list[float]] = {"plain": [], "guessed": []}
    said: dict[str, list[dict[str, str]]] = {"plain": [], "guessed": []}
    with ExitStack() as stack:
        engines = {}
        for way, guesses in (("plain", None), ("guessed", run.config.engine.speculation)):
            settings = run.config.engine.model_copy(
                update={"engine_args": plain_args, "speculation": guesses}
            )
            engines[way] = stack.enter_context(offline.OfflineEngine(settings, models.local(settings)))
            # Loaded, and warm.
            _passed(engines[way], jobs[:2])
        for _, (way, engine) in product(range(_SPECULATION_PASSES), engines.items()):
            start, spent = time.monotonic(), _processor_seconds(engine)
            said[way].append(_passed(engine, jobs))
            taken[way].append(time.monotonic() - start)
            of_processor[way].append(_processor_seconds(engine) - spent)
    first = said["plain"][0]
    return {
        **{f"speculation_{way}_seconds": [round(one, 1) for one in passes] for way, passes in taken.items()},
        **{
            f"speculation_{way}_processor_seconds": [round(one, 1) for one in passes]
            for way, passes in of_processor.items()
        },
        "speculation_answers": len(jobs),
        "speculation_characters": round(statistics.mean(map(len, first.values()))),
        "speculation_same": sum(said["guessed"][0][key] == text for key, text in first.items()),
        "speculation_same_without": sum(said["plain"][1][key] == text for key, text in first.items()),
        "speculation_speedup": _ratio(taken),
        # Beside other work on the machine, the steadier figure.
        "speculation_speedup_processor": _ratio(of_processor),
    }


def _ratio(taken: dict[str, list[float]]) -> float:
    return round(statistics.median(taken["plain"]) / statistics.median(taken["guessed"]), 2)


def _processor_seconds(engine: offline.OfflineEngine) -> float:
    times = psutil.Process(engine._process.pid).cpu_times()
    return float(times.user + times.system)


def _answers(run: Run) -> list[Job]:
    prompt = run.plan.prompts["answer"]
    return [
        Job(f"{number}", one.content, one.token_ids, prompt.output_schema, dict(prompt.sampling))
        for number, one in enumerate(_rendered(run, "answer"))
    ]


def _passed(engine: offline.OfflineEngine, jobs: list[Job]) -> dict[str, str]:
    """The texts of all jobs, handed in as there is room."""
    said: dict[str, str] = {}
    waiting = list(jobs)
    while waiting or len(said) < len(jobs):
        while waiting and engine.room:
            engine.submit(waiting.pop(0))
        for key, outcome in engine.finished():
            said[key] = outcome.text if isinstance(outcome, Completion) else outcome.message
    return said


def _rendered(run: Run, stage: str) -> list[Rendered]:
    """The prompts of a stage in the order of their documents."""
    prompt, settings = run.plan.prompts[stage], run.config.engine
    prompter = Prompter(settings, models.local(settings))
    requests = STAGES[stage].requests(run, run.parts[0])
    room = int(prompt.sampling["max_tokens"])
    return [prompter.render(prompt, request.arguments, room) for request in requests]


def loop(uri: str, way: str) -> dict[str, Any]:
    """Usable pairs and seconds of the three prompts in a row."""
    run = Run.open(uri)
    engine = _engine(run)
    ask = partial(_asked, run, engine, way)
    documents = selected.documents(run, run.parts[0], ["doc_id", "text"])
    texts = {row["doc_id"]: row["text"] for row in documents}
    start = time.monotonic()
    rewritten = [Request(row["doc_id"], {"text": row["text"]}) for row in documents]
    questions = list(ask("rewrite", rewritten))
    scored = [Request(row["question_id"], {"question": row["question"]}) for row in questions]
    kept = list(ask("score", scored))
    answered = [
        Request(row["question_id"], {"text": texts[row["doc_id"]], "question": row["question"]})
        for row in kept
    ]
    pairs = list(ask("answer", answered))
    return {
        "questions": len(questions),
        "scored": len(kept),
        "pairs": len(pairs),
        "seconds": time.monotonic() - start,
    }


def _asked(run: Run, engine: Any, way: str, stage: str, requests: list[Request]) -> Iterator[dict[str, Any]]:
    """The rows that pass the same gates as the stage's own."""
    prompt, settings = run.plan.prompts[stage], run.config.engine
    prompter = Prompter(settings, models.local(settings))
    sampling = _sampling(prompt, prompt.output_schema if way == "schema" else None)
    read = _as_published if way == "published" else parse
    for first in range(0, len(requests), _BATCH):
        batch = requests[first : first + _BATCH]
        # Cut as the stages cut it: with the runner itself, one document that is too long fails its batch.
        room = int(prompt.sampling["max_tokens"])
        contents = [prompter.render(prompt, request.arguments, room).content for request in batch]
        outputs = engine.chat([_said(content) for content in contents], sampling, use_tqdm=False)
        for request, output in zip(batch, outputs, strict=True):
            said = output.outputs[0]
            parsed = read(Response(Completion(said.text, said.finish_reason or "stop", 0, 0)), prompt)
            if isinstance(parsed, Parsed):
                yield from _gated(run, stage, request, parsed)


def _gated(run: Run, stage: str, request: Request, parsed: Parsed) -> list[dict[str, Any]]:
    try:
        reading = STAGES[stage].read(run.config.gates, request, parsed)
    except (KeyError, TypeError, ValueError, AttributeError):  # not of the schema, and read all the same
        return []
    return [row for row in reading if row["kept"]] if isinstance(reading, list) else []


def _as_published(response: Response, _: FrozenPrompt) -> Parsed | None:
    """The published runner's reading: from the first brace to the last."""
    match = _OBJECT.search(response.completion.text)
    try:
        return Parsed(json.loads(match[0]), (), response) if match else None
    except ValueError:
        return None


def _sampling(prompt: FrozenPrompt, schema: Any, logprobs: int | None = None) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    structured = StructuredOutputsParams(json=schema) if schema else None
    return SamplingParams(**prompt.sampling, structured_outputs=structured, logprobs=logprobs)


def _said(content: str) -> list[Any]:
    return [{"role": "user", "content": content}]


def _engine(run: Run) -> Any:
    settings = run.config.engine
    os.environ.update(offline._environment(settings))
    from vllm import LLM

    return LLM(**offline._arguments(settings, models.local(settings)))


def counting(stage: str, uri: str) -> None:
    """Run a stage with this file as its engine's process."""
    offline.COMMAND = [sys.executable, __file__, "worker"]
    sys.argv = ["aitp", stage, "--run", uri, "--unit", "0"]
    cli.main()


def worker() -> None:
    """The engine's process, counting."""
    from aitp_tasks.generation.engine import worker as real

    counted = os.open(Path(os.environ["AITP_COUNTED"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    plain = real._Server.run

    def run(server: Any) -> None:
        core = server._engine.engine_core
        get = core.get_output

        def get_output() -> Any:
            outputs = get()
            os.write(counted, b"." * sum(len(output.new_token_ids) for output in outputs.outputs))
            return outputs

        core.get_output = get_output
        plain(server)

    real._Server.run = run
    real.main()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    figures = {"raw": raw, "shareable": shareable, "loop": loop, "speculation": speculation}
    if name in figures:
        print(json.dumps(figures[name](*arguments)))
    else:
        {"counting": counting, "worker": worker}[name](*arguments)
