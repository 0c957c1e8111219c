"""prompt: look at the prompts and try them out, beside any run.

``check`` reads the folder as plan would, ``show`` fills a prompt with a document
as the engine would see it, ``try`` takes one document through the three stages
on a live engine, one answer a question. The judge's prompt is tried where answers
are judged; it is checked where it is there, too. Nothing is stored.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.config import Gates, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.generation import judging, prompt_files
from aitp_tasks.generation.engine import Engine, Job, open_engine
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.preparing import shown
from aitp_tasks.generation.prompt_files import JUDGE
from aitp_tasks.generation.requests import Asking, Reading, Rejected, Request, parse
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import models
from aitp_tasks.records import digest
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.stages import answer, rewrite, score

#: Stand for what is asked and answered where only the document is given.
_STAND_INS = {"question": "(the question)", "answer": "(the answer)"}


def execute(
    config: RunConfig, action: str, stage: str = "rewrite", document: str | None = None
) -> dict[str, Any]:
    """Check, show or try the prompts.

    Args:
        config: of a run.
        action: ``check``, ``show`` or ``try``.
        stage: whose prompt to show.
        document: a text file, ``-`` for standard input; for show and try.

    Raises:
        InputError: a prompt is not usable, the document cannot be read, or the model cannot be loaded.
    """
    judged = config.gates.min_faithfulness is not None
    checked = action == "check" and prompt_files.is_there(config.prompts, JUDGE)
    loaded = prompt_files.load_folder(config.prompts, judged or checked or stage == JUDGE)
    if action == "check":
        return {"stage": "prompt", "prompts": {name: _described(prompt) for name, prompt in loaded.items()}}
    text = _read(document)
    if action == "show":
        return _shown(config, loaded[stage], text)
    return {"stage": "prompt", "model": config.engine.label, **_tried(config, loaded, text)}


def _described(prompt: FrozenPrompt) -> dict[str, Any]:
    return {
        "version": prompt.version,
        "digest": prompt.digest,
        "keys": list(prompt.output_schema["properties"]),
        "sampling": prompt.sampling,
    }


def _read(document: str | None) -> str:
    if document is None:
        raise InputError("no document: name a text file by --document, or - for standard input")
    try:
        data = sys.stdin.buffer.read() if document == "-" else Path(document).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise InputError(f"document {document} cannot be read ({error.strerror}): name a text file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"document {document} is not UTF-8 ({error.reason}): save it so") from None


def _shown(config: RunConfig, prompt: FrozenPrompt, text: str) -> dict[str, Any]:
    room = int(prompt.sampling["max_tokens"])
    names = prompt_files.FILES[prompt.name][1]
    # The document, or else the question.
    values = {name: text if name == names[0] else _STAND_INS[name] for name in names}
    try:
        rendered = Prompter(config.engine, models.local(config.engine)).render(prompt, values, room)
    except ValueError as error:
        raise InputError(str(error)) from None
    return {
        "stage": "prompt",
        "prompt": prompt.name,
        "version": prompt.version,
        "tokens": len(rendered.token_ids),
        "tokens_for_the_response": room,
        "characters_cut": rendered.cut_characters,
        "marks_neutralised": dict(rendered.neutralised),
        "content": rendered.content,
    }


def _tried(config: RunConfig, loaded: dict[str, FrozenPrompt], text: str) -> dict[str, Any]:
    model = models.local(config.engine)
    with open_engine(config.engine, model) as engine:
        ask = _Asker(config.gates, loaded, engine, Prompter(config.engine, model))
        questions, refused = ask(rewrite.STAGE, [Request(digest.of_text(text), {"text": text})])
        scores, dropped = ask(
            score.STAGE,
            [Request(row["question_id"], {"question": row["question"]}) for row in questions if row["kept"]],
        )
        answering = [
            Request(row["question_id"], {"text": text, "question": row["question"]})
            for row in scores
            if row["kept"]
        ]
        answers, unanswered = ask(answer.STAGE, answering)
        tried = {"questions": questions, "scores": scores, "answers": answers}
        unjudged: list[dict[str, str]] = []
        if JUDGE in loaded:
            by_id = {request.id: request for request in answering}
            judging_them = [
                judging.request_of(by_id[row["question_id"]], row) for row in answers if row["kept"]
            ]
            tried["verdicts"], unjudged = ask(judging.ASKING, judging_them)
    return {**tried, "refused": [*refused, *dropped, *unanswered, *unjudged]}


class _Asker:
    """Asks an engine, and keeps nothing."""

    def __init__(
        self, gates: Gates, loaded: Mapping[str, FrozenPrompt], engine: Engine, prompter: Prompter
    ) -> None:
        self._gates, self._prompts, self._engine, self._prompter = gates, loaded, engine, prompter

    def __call__(
        self, stage: Asking, requests: list[Request]
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Output rows, and what was refused or rejected, with its reason."""
        rows: list[dict[str, Any]] = []
        refused: list[dict[str, str]] = []
        for request, outcome in self._outcomes(stage, requests):
            reading = self._reading(stage, request, outcome)
            if isinstance(reading, Refusal):
                refused.append({"stage": stage.name, "id": request.id, "reason": reading.message})
            elif isinstance(reading, Rejected):
                refused.append({"stage": stage.name, "id": request.id, "reason": reading.reason})
                rows += reading.rows
            else:
                rows += reading
        return rows, refused

    def _outcomes(
        self, stage: Asking, requests: list[Request]
    ) -> Iterable[tuple[Request, Response | Refusal]]:
        prompt = self._prompts[stage.name]
        for request in requests:
            try:
                arguments = shown(request, self._prompter)
                rendered = self._prompter.render(prompt, arguments, int(prompt.sampling["max_tokens"]))
            except ValueError as error:
                yield request, Refusal("not_servable", str(error))
                continue
            self._engine.submit(
                Job(
                    id=request.id,
                    content=rendered.content,
                    token_ids=rendered.token_ids,
                    schema=prompt.output_schema,
                    sampling=prompt.sampling,
                    alternatives=stage.alternatives,
                )
            )
            for _, outcome in self._engine.finished():
                yield (
                    request,
                    outcome if isinstance(outcome, Refusal) else Response(outcome, rendered.cut_characters),
                )

    def _reading(self, stage: Asking, request: Request, outcome: Response | Refusal) -> Reading:
        if isinstance(outcome, Refusal):
            return outcome
        parsed = parse(outcome, self._prompts[stage.name])
        return parsed if isinstance(parsed, Refusal) else stage.read(self._gates, request, parsed)
