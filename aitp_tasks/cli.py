"""The contract of the data plane: ``aitp STAGE --run URI [--unit N]``; and what stands beside the stages.

Logs go to standard error, line by line; standard output carries one line, the
stage's JSON result. The exit code says whether a retry can help (see
``aitp_tasks.errors``). What libraries print to standard output is sent to
standard error, so that the result is alone.
"""

import argparse
import errno
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitp_tasks.errors import AitpError, ExitCode


@dataclass(frozen=True)
class Stage:
    """One stage as the command line shows it."""

    name: str
    does: str
    fans_out: str = ""


STAGES = (
    Stage("plan", "list the shards, pack them into units, freeze the configuration"),
    Stage("embed", "turn the texts of one group of shards into vectors", "embed_units"),
    Stage("merge", "fit the projection, index the SFT set"),
    Stage("density", "project one group, spread it over the density grid", "embed_units"),
    Stage("index", "merge the corpus index, say where each document lies"),
    Stage("difference", "select the documents that the SFT set hardly covers"),
    Stage("rewrite", "rewrite one part's documents into questions", "parts"),
    Stage("score", "score one part's questions and gate them", "parts"),
    Stage("answer", "answer one part's questions with their documents", "parts"),
    Stage("assemble", "join pairs and SFT set into a new dataset version"),
    Stage("finetune", "fine-tune the base model on the dataset version"),
    Stage("report", "write the run's report"),
)

ESTIMATE = Stage("estimate", "say what a run will take, from a rehearsal on a sample of its input")
SEARCH = Stage("search", "find the documents or SFT examples that are nearest to a text")
EXPLAIN = Stage("explain", "say where a document lies, and why it was selected or not")
PROMPT = Stage("prompt", "check the prompts, show one filled, or try them on a document and a live engine")
BESIDE = (ESTIMATE, SEARCH, EXPLAIN, PROMPT)
#: These, like plan, take a configuration and no run.
_CONFIGURED = (STAGES[0], ESTIMATE, PROMPT)


def main() -> None:
    """Entry point of ``aitp``."""
    arguments = _parser().parse_args()
    result_stream = _result_stream()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpx2", "botocore", "boto3", "faiss", "sentence_transformers", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    code, result = _guarded(lambda: _run_stage(arguments))
    if result is not None:
        print(json.dumps(result), file=result_stream, flush=True)
    sys.stderr.flush()
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    stages, beside = _listed(STAGES), _listed(BESIDE)
    codes = ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog="aitp",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="aitp [-h] STAGE ...",
        description=f"Run one stage of the AITP pipeline. In order:\n\n{stages}\n\nBeside them:\n\n{beside}",
        epilog=f"exit codes: {codes}; after anything else, too, a retry may help",
    )
    commands = parser.add_subparsers(
        dest="stage", required=True, metavar="STAGE", prog="aitp", help=argparse.SUPPRESS
    )
    for stage in (*STAGES, *BESIDE):
        _add_arguments(commands.add_parser(stage.name, description=stage.does), stage)
    return parser


def _listed(stages: Iterable[Stage]) -> str:
    return "\n".join(
        f"  {stage.name:<11}{stage.does}" + (f" (one of {stage.fans_out})" if stage.fans_out else "")
        for stage in stages
    )


def _add_arguments(command: argparse.ArgumentParser, stage: Stage) -> None:
    if stage in _CONFIGURED:
        command.add_argument("--config", type=Path, required=True, help="configuration, YAML")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override, e.g. difference.tau=0.5",
        )
    else:
        command.add_argument("--run", required=True, metavar="URI", help="the run that plan printed")
    if stage.fans_out:
        command.add_argument("--unit", type=int, required=True, help=f"0 to {stage.fans_out} - 1")
    if stage in _ARGUMENTS:
        _ARGUMENTS[stage](command)


def _add_to_estimate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--price", type=float, metavar="PER_GPU_HOUR", help="adds the cost")
    command.add_argument(
        "--parallel", type=int, metavar="N", help="GPUs side by side; by default this machine's"
    )
    command.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="documents to measure on; by default 256, or 4,096 with a GPU",
    )


def _add_to_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", help="what to search for")
    command.add_argument(
        "--in", dest="role", choices=("corpus", "sft"), default="corpus", help="by default corpus"
    )
    command.add_argument("-k", type=int, default=10, metavar="N", help="how many; by default 10")


def _add_to_explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("doc_id", help="the document's id, or its first 8 digits or more")


def _add_to_prompt(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("check", "show", "try"))
    command.add_argument("--stage", dest="prompt", choices=("rewrite", "score", "answer"), default="rewrite")
    command.add_argument("--document", metavar="FILE", help="a text file, or - for standard input")


_ARGUMENTS = {
    ESTIMATE: _add_to_estimate,
    SEARCH: _add_to_search,
    EXPLAIN: _add_to_explain,
    PROMPT: _add_to_prompt,
}


def _run_stage(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = "tools" if arguments.stage in {tool.name for tool in BESIDE} else "stages"
    module = importlib.import_module(f"aitp_tasks.{folder}.{arguments.stage}")
    given: tuple[Any, ...] = ()
    if arguments.stage == ESTIMATE.name:
        given = (arguments.price, arguments.parallel, arguments.sample)
        module.check(*given)
    elif arguments.stage == SEARCH.name:
        given = (arguments.text, arguments.role, arguments.k)
    elif arguments.stage == EXPLAIN.name:
        given = (arguments.doc_id,)
    elif arguments.stage == PROMPT.name:
        given = (arguments.action, arguments.prompt, arguments.document)
    elif arguments.stage != "plan":
        given = (getattr(arguments, "unit", None),)
    result: dict[str, Any] = module.execute(_subject(arguments), *given)
    return result


def _subject(arguments: argparse.Namespace) -> Any:
    """The configuration that is named, or the run."""
    if "config" in arguments:
        from aitp_tasks.config import RunConfig

        return RunConfig.load(arguments.config, arguments.set)
    from aitp_tasks.records.run import Run

    return Run.open(arguments.run)


def _guarded(work: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any] | None]:
    """Run a stage; turn its errors into one line and an exit code."""
    try:
        return ExitCode.DONE, work()
    except AitpError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code, None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or "the temporary folder"
        print(f"error: no space left on the device of {place}: free space, then retry", file=sys.stderr)
        return ExitCode.TRANSIENT, None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _result_stream() -> Any:
    """The real standard output; from now on, descriptor 1 is standard error."""
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return real


if __name__ == "__main__":
    main()
