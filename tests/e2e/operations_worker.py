"""Stands in for ``aitp`` where people do things to runs: a real line, and stages that can be told what to do.

Each stage asks for what the stage before it has left, commits one manifest, and writes down that
it has worked; what is there already it finds and does not do again. In the folder that
``OPERATIONS`` names, ``fail-STAGE`` makes a stage fail once, and ``hold-STAGE`` keeps it at work.
Light: only what the line needs is imported, and where it is needed.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["OPERATIONS"])
ORDER = ("plan", "embed", "merge", "density", "difference", "rewrite", "score", "answer", "assemble")
ORDER = (*ORDER, "finetune", "evaluate", "promote", "report")


def main() -> None:
    stage, *arguments = sys.argv[1:]
    if stage == "line":
        from aitp_tasks import cli

        cli.main()
    run = Path(plan(arguments) if stage == "plan" else value(arguments, "--run").removeprefix("file://"))
    result = {"stage": stage, "run": f"file://{run}", "seconds": 0, "parts": 1, "label": stage}
    if stage == "units":
        done = (run / f"{arguments[-1]}.json").exists()
        print(json.dumps(result | {"units": [] if done else [{"number": 0, "holds": run.parent.name}]}))
        return
    require(run, stage)
    if not (run / f"{stage}.json").exists():
        work(run, stage)
    print(json.dumps(result | {"embed_units": 1}))


def plan(arguments: list[str]) -> str:
    """Folder of the run of a configuration."""
    from aitp_tasks import cli
    from aitp_tasks.config import RunConfig

    settings = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--set"]
    code, found = cli._guarded(
        lambda: {"config": RunConfig.load(Path(value(arguments, "--config")), settings)}
    )
    if found is None:
        sys.exit(code)
    config: RunConfig = found["config"]
    identity = hashlib.sha256(json.dumps(config.identity()).encode()).hexdigest()[:16]
    run = Path(config.root.removeprefix("file://")) / "runs" / config.dump / identity
    run.mkdir(parents=True, exist_ok=True)
    return str(run)


def require(run: Path, stage: str) -> None:
    """As ``Run.require_manifest``: what comes before must have been done."""
    before = "merge" if stage == "index" else ORDER[max(ORDER.index(stage) - 1, 0)]
    if stage != "plan" and not (run / f"{before}.json").exists():
        print(f"error: {before} has not been done in {run}: run `aitp {before}` first", file=sys.stderr)
        sys.exit(2)


def work(run: Path, stage: str) -> None:
    """Do a stage's work, as it was told to."""
    fail, hold = FOLDER / f"fail-{stage}", FOLDER / f"hold-{stage}"
    if fail.exists():
        fail.unlink()
        print(f"error: {stage} was told to fail", file=sys.stderr)
        sys.exit(2)
    (FOLDER / f"at-{stage}").write_text(str(os.getpid()))
    while hold.exists():
        time.sleep(0.05)
    if stage == "assemble":
        assemble(run)
    with (FOLDER / "worked.jsonl").open("a") as told:
        told.write(json.dumps([str(run), stage]) + "\n")
    (run / f"{stage}.json").write_text("{}")


def assemble(run: Path) -> None:
    """Add a version to the line."""
    from aitp_tasks.records import versions
    from aitp_tasks.storage import open_storage

    storage, line = open_storage(f"file://{run.parents[2]}"), "aitp"
    base = versions.latest(storage, line)
    version = versions.Version(
        name=f"{run.parent.name}-{run.name}",
        run=f"runs/{run.parent.name}/{run.name}",
        ancestors=(*base.ancestors, base.name) if base else (),
        geometry=versions.Geometry(key="g", identity="i", corpus_grid="c"),
    )
    versions.add(storage, line, version)
    versions.take_in(storage, line, run.parent.name.split("+"), version.run)


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


if __name__ == "__main__":
    main()
