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
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aitp_tasks.errors import EXIT_CODE, AitpError, ExitCode, InputError
from aitp_tasks.machine import devices, processes
from aitp_tasks.stages import STAGES, Stage
from aitp_tasks.tools import DATASET, TOOLS, Tool

log = logging.getLogger(__name__)

#: Seconds after which a line is written even though nothing is to be told.
_SILENT_SECONDS = 30.0
#: These take a configuration; the others, the URI of the run that plan has made of one.
_CONFIGURED = {
    *("plan", "estimate", "prompt", "lineage", "publish", "gc", "compact", "indexes", "storage", "line")
}
#: These take one, too, but do without.
_CONFIGURED_IF_WANTED = {"inspect", "doctor"}
#: These are handed what the command line says, and no configuration that has been read.
_BY_THEMSELVES = {"init", "doctor"}


def main() -> None:
    """Entry point of ``aitp``."""
    processes.end_with_starter()
    arguments = parser().parse_args()
    result_stream = _result_stream()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpx2", "botocore", "boto3", "faiss", "sentence_transformers", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _say_so_when_nothing_is_said()
    code, result = _guarded(lambda: _run_stage(arguments))
    if result is not None:
        print(json.dumps(result), file=result_stream, flush=True)
    sys.stderr.flush()
    sys.exit(code)


class _LastLine(logging.Handler):
    """Knows when the last line was written."""

    at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self.at = time.monotonic()


def _say_so_when_nothing_is_said() -> None:
    """Write a line at least every half minute, so that one sees that the process lives, and what it takes."""
    last = _LastLine()
    logging.getLogger().addHandler(last)
    started = time.monotonic()

    def watch() -> None:
        while True:
            time.sleep(_SILENT_SECONDS / 6)
            if time.monotonic() - last.at >= _SILENT_SECONDS:
                log.info(
                    "at work seconds=%.0f peak_memory_mb=%.0f",
                    *(time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
                )

    threading.Thread(target=watch, daemon=True, name="at-work").start()


def parser() -> argparse.ArgumentParser:
    """All of the command line."""
    codes = ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)
    whole = argparse.ArgumentParser(
        prog="aitp",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="aitp [-h] [--version] STAGE ...",
        description="Run one stage of the AITP pipeline. In order:\n\n"
        f"{_listed(STAGES)}\n\nBeside them:\n\n{_listed(TOOLS)}",
        epilog=f"exit codes: {codes}; after anything else, too, a retry may help",
    )
    whole.add_argument("--version", action="version", version=f"aitp {version('aitp')}")
    commands = whole.add_subparsers(
        dest="stage", required=True, metavar="STAGE", prog="aitp", help=argparse.SUPPRESS
    )
    for entry in (*STAGES, *TOOLS):
        _add_arguments(commands.add_parser(entry.name, description=entry.does), entry)
    return whole


def _listed(entries: Iterable[Stage | Tool]) -> str:
    return "\n".join(
        f"  {entry.name:<11}{entry.does}" + (f" (one of {units})" if (units := _fans_out(entry)) else "")
        for entry in entries
    )


def _fans_out(entry: Stage | Tool) -> str:
    return entry.fans_out if isinstance(entry, Stage) else ""


def _add_arguments(command: argparse.ArgumentParser, entry: Stage | Tool) -> None:
    if entry.name == _DATASET:
        _add_actions(command)
    elif entry.name in _CONFIGURED | _CONFIGURED_IF_WANTED:
        _add_configuration(command, required=entry.name in _CONFIGURED)
    elif entry.name not in _BY_THEMSELVES:
        command.add_argument("--run", required=True, metavar="URI", help="the run that plan printed")
    if units := _fans_out(entry):
        command.add_argument("--unit", type=int, required=True, help=f"0 to {units} - 1")
    if entry.name in _ARGUMENTS:
        _ARGUMENTS[entry.name](command)


def _add_configuration(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("--config", type=Path, required=required, help="configuration, YAML")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. difference.tau=0.5"
    )


def _add_actions(command: argparse.ArgumentParser) -> None:
    """The actions of dataset, each a command with arguments of its own."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", prog=command.prog)
    for entry in DATASET:
        action = actions.add_parser(entry.name, description=entry.does, help=entry.does)
        _add_configuration(action, required=True)
        for arguments, settings in _OF_ACTIONS.get(entry.name, ()):
            action.add_argument(*arguments, **settings)


def _add_to_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--check", action="store_true", help="only see whether the run could be planned; no plan is written"
    )


def _add_to_init(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root", required=True, metavar="URI", help="of the storage with corpus/ and sft/, e.g. s3://bucket"
    )
    command.add_argument("--output", required=True, type=Path, metavar="FILE", help="to write; a new one")
    command.add_argument("--dump", metavar="NAME", help="by default the newest below corpus/")
    command.add_argument("--sft", metavar="NAME", help="by default the only set below sft/")
    command.add_argument(
        "--text-column",
        dest="text_columns",
        action="append",
        default=[],
        metavar="PATH",
        help="of the corpus; by default the one that is there: text, content and the like",
    )
    command.add_argument("--dataset", metavar="NAME", help="of the line of versions; by default as the set")
    for name, does in (("encoder", "embeds"), ("engine", "generates"), ("finetune", "is fine-tuned")):
        command.add_argument(
            f"--{name}",
            metavar="MODEL",
            help=f"that {does}: a folder, a storage prefix, or a hub name, perhaps with @revision; by default"
            " one that suits this machine",
        )


def _add_to_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-trials", dest="trials", action="store_false", help="only look: load no model, write no object"
    )
    command.add_argument(
        "--json", action="store_true", help="all findings as JSON on standard output, and no table"
    )


def _add_to_estimate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--price", type=float, metavar="PER_GPU_HOUR", help="adds the cost; by default the configuration's"
    )
    command.add_argument(
        "--parallel", type=int, metavar="N", help="GPUs side by side; by default this machine's"
    )
    command.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="documents to measure on; by default 256, or 4,096 with a GPU",
    )
    command.add_argument(
        "--rehearse", action="store_true", help="measure on this machine, whatever earlier runs have told"
    )


def _add_to_inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("uri", help="of the folder or the file, e.g. s3://bucket/sft/name")
    command.add_argument(
        "--role", choices=("corpus", "sft"), help="by default, which of the two is a folder in the URI"
    )
    command.add_argument(
        "--all", dest="whole", action="store_true", help="read all rows of all files, not the first of a few"
    )


def _add_to_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", help="what to search for")
    command.add_argument(
        "--in", dest="role", choices=("corpus", "sft"), default="corpus", help="by default corpus"
    )
    command.add_argument("-k", type=int, default=10, metavar="N", help="how many; by default 10")


def _add_to_units(command: argparse.ArgumentParser) -> None:
    command.add_argument("of", choices=("embed", "density"), help="the stage")


def _add_to_explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("doc_id", help="the document's id, or its first 8 digits or more")


def _add_to_prompt(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "action",
        choices=("check", "show", "try"),
        help="check the folder as plan does, show a prompt filled, or try them on a live engine",
    )
    command.add_argument(
        "--stage",
        dest="prompt",
        choices=("rewrite", "score", "answer", "judge"),
        default="rewrite",
        help="whose prompt to show; by default rewrite",
    )
    command.add_argument(
        "--document", metavar="FILE", help="for show and try: a text file, or - for standard input"
    )


def _add_to_lineage(command: argparse.ArgumentParser) -> None:
    command.add_argument("pair_id", help="the pair's id, or its first 8 digits or more")
    command.add_argument(
        "--version", default="latest", metavar="NAME", help="where it is looked for first; by default latest"
    )


def _add_to_publish(command: argparse.ArgumentParser) -> None:
    command.add_argument("version", metavar="VERSION", help="its name, or latest")
    command.add_argument(
        "--to",
        required=True,
        metavar="PLACE",
        help="where: hf://owner/name; s3://bucket/prefix or file:///folder, below which it gets a folder",
    )
    command.add_argument(
        "--public", action="store_true", help="a repository that anybody may read; by default it is private"
    )


def _add_to_gc(command: argparse.ArgumentParser) -> None:
    deleting = command.add_mutually_exclusive_group()
    deleting.add_argument("--delete", action="store_true", help="delete it; without, it is only told")
    deleting.add_argument(
        "--delete-if-configured",
        dest="delete",
        action="store_const",
        const=None,
        help="delete it if maintenance.delete says so, as the DAG aitp_maintenance does",
    )
    command.add_argument(
        "--keep",
        type=int,
        metavar="N",
        help="newest finished runs of each line that keep all that they have made; "
        "by default maintenance.keep_runs",
    )
    command.add_argument(
        "--older-than",
        dest="days",
        type=float,
        metavar="DAYS",
        help="younger objects are kept; by default maintenance.min_age_days",
    )


def _add_to_skip(command: argparse.ArgumentParser) -> None:
    command.add_argument("--unit", type=int, required=True, help="number of the part, from 0")
    command.add_argument(
        "--stage",
        dest="skipped",
        choices=("rewrite", "score", "answer"),
        default="answer",
        help="that has not done it; by default answer. Where it has, nothing is given up",
    )
    command.add_argument("--why", required=True, help="for those who read of it in the report and the card")


def _add_to_line(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("begin", "end"), help="before plan, and when the run has ended")
    command.add_argument("--holder", required=True, metavar="NAME", help="how you call the run")
    command.add_argument(
        "--kind",
        choices=("manual", "backfill", "nightly"),
        default="manual",
        help="manual takes the dump as it is named; the others only one that is there and whole",
    )
    command.add_argument(
        "--gone",
        action="append",
        default=[],
        metavar="NAME",
        help="a holder that has ended without saying so",
    )
    command.add_argument("--alone", action="store_true", help="no other run is about to begin: wait for none")


def _add_to_promote(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--refused-by", metavar="NAME", help="who has not approved it: then nothing is promoted"
    )


#: The tool that has actions with arguments of their own, and those.
_DATASET = "dataset"
_OF_ACTIONS: dict[str, tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = {
    "show": ((("version",), {"nargs": "?", "default": "latest", "help": "its name; by default latest"}),),
    "diff": (
        (("before",), {"help": "name of a version, or latest"}),
        (("after",), {"help": "name of another"}),
    ),
    "rollback": (
        (("version",), {"help": "name of a version that the latest builds on, or of one taken back"}),
    ),
    "export": (
        (("version",), {"help": "its name, or latest"}),
        (("folder",), {"help": "of this machine; empty, not there, or with a part of the same version"}),
    ),
    "mark": (
        (("pair_id",), {"help": "its id in the latest version, or the beginning of that"}),
        (("mark",), {"choices": ("good", "bad"), "help": "a bad one leaves with the next version"}),
        (("--note",), {"default": "", "help": "why"}),
    ),
}
_ARGUMENTS = {
    "init": _add_to_init,
    "doctor": _add_to_doctor,
    "plan": _add_to_plan,
    "promote": _add_to_promote,
    "inspect": _add_to_inspect,
    "lineage": _add_to_lineage,
    "publish": _add_to_publish,
    "gc": _add_to_gc,
    "line": _add_to_line,
    "skip": _add_to_skip,
    "estimate": _add_to_estimate,
    "search": _add_to_search,
    "explain": _add_to_explain,
    "units": _add_to_units,
    "prompt": _add_to_prompt,
}
#: What is handed to a tool, beside its configuration or run.
_HANDED = {
    "init": (*("root", "output", "dump", "sft", "text_columns", "dataset", "encoder", "engine", "finetune"),),
    "doctor": ("config", "set", "trials", "json"),
    "inspect": ("uri", "role", "whole"),
    "dataset.list": (),
    "dataset.show": ("version",),
    "dataset.diff": ("before", "after"),
    "dataset.rollback": ("version",),
    "dataset.export": ("version", "folder"),
    "dataset.mark": ("pair_id", "mark", "note"),
    "lineage": ("pair_id", "version"),
    "publish": ("version", "to", "public"),
    "gc": ("keep", "days", "delete"),
    "compact": (),
    "indexes": (),
    "storage": (),
    "line": ("action", "holder", "kind", "gone", "alone"),
    "skip": ("unit", "skipped", "why"),
    "estimate": ("price", "parallel", "sample", "rehearse"),
    "search": ("text", "role", "k"),
    "explain": ("doc_id",),
    "units": ("of",),
    "prompt": ("action", "prompt", "document"),
}


#: What is handed to a stage in the place of its unit.
_HANDED_TO_STAGES = {"plan": ("check",), "promote": ("refused_by",)}


def _run_stage(arguments: argparse.Namespace) -> dict[str, Any]:
    name = arguments.stage
    if name == _DATASET:
        name = f"{_DATASET}.{arguments.action}"
    folder = "tools" if name in _HANDED else "stages"
    module = importlib.import_module(f"aitp_tasks.{folder}.{name}")
    to_stages = _HANDED_TO_STAGES.get(name, ("unit",))
    handed = [getattr(arguments, argument, None) for argument in _HANDED.get(name, to_stages)]
    if name == "estimate":
        module.check(*handed)
    subject = [] if name in _BY_THEMSELVES else [_subject(arguments)]
    result: dict[str, Any] = module.execute(*subject, *handed)
    return result


def _subject(arguments: argparse.Namespace) -> Any:
    """The configuration that is named, or the run."""
    if "config" in arguments:
        from aitp_tasks.config import RunConfig

        if arguments.config is None:
            if arguments.set:
                raise InputError(
                    f"--set {arguments.set[0]} is given without --config: give the configuration"
                )
            return None
        return _on_its_devices(RunConfig.load(arguments.config, arguments.set))
    from aitp_tasks.records.run import Run

    return _on_its_devices(Run.open(arguments.run))


def _on_its_devices(subject: Any) -> Any:
    """The configuration or the run; this process keeps to what it says about devices."""
    devices.demand(getattr(subject, "config", subject).devices.require)
    return subject


def _guarded(work: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any] | None]:
    """Run a stage; turn its errors into one line and an exit code, which a tool's result may name itself."""
    try:
        result = work()
        return result.pop(EXIT_CODE, ExitCode.DONE), result
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
