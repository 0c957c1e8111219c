"""Stands in for ``aitp`` where only the order of runs counts: a real line, and stages that do nothing.

``plan`` builds on the latest version, ``assemble`` adds one to the line and writes
down that the run was under way between the two. A file ``fail-STAGE``, or
``fail-STAGE-UNIT``, beside the plan makes that fail once, with its text as the error;
``embed-left`` there says which groups are to be embedded.
"""

import json
import sys
import time
from pathlib import Path

from aitp_tasks import cli
from aitp_tasks.config import RunConfig
from aitp_tasks.records import versions
from aitp_tasks.storage import open_storage


def main() -> None:
    stage, *arguments = sys.argv[1:]
    if stage == "line":
        cli.main()
    result = {"stage": stage, "run": value(arguments, "--run"), "seconds": 0}
    if stage == "plan":
        result |= plan(arguments)
    run = str(result["run"])
    folder = Path(run.removeprefix("file://"))
    for fail in (folder / f"fail-{stage}", folder / f"fail-{stage}-{value(arguments, '--unit')}"):
        if fail.exists():
            told = fail.read_text() or f"{stage} was told to fail"
            fail.unlink()
            print(f"error: {told}", file=sys.stderr)
            sys.exit(2)
    if stage == "skip":
        with (folder / "skipped").open("a") as file:
            file.write(json.dumps(arguments) + "\n")
    if stage == "assemble":
        result |= assemble(run)
    if stage == "finetune":
        checkpoint = run.replace("/runs/", "/models/line/").removesuffix("/x")
        result |= {"checkpoint": checkpoint, "train_loss_first": 2.0, "train_loss_last": 1.0}
        result |= {"unchanged": False}
    print(json.dumps(result | {"parts": 1, "label": stage}))


def plan(arguments: list[str]) -> dict[str, object]:
    settings = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--set"]
    config = RunConfig.load(Path(str(value(arguments, "--config"))), settings)
    storage = open_storage(config.root)
    base = versions.latest(storage, config.assemble.dataset)
    key = f"runs/{config.dump}/x"
    told = {
        "dump": config.dump,
        "line": config.assemble.dataset,
        "base": base and base.model_dump(),
        "from": time.time(),
    }
    storage.write(f"{key}/plan.json", json.dumps(told).encode())
    path = Path(storage.uri(key).removeprefix("file://")) / "embed-left"
    return {
        "run": storage.uri(key),
        "embed_units": 1,
        "embed_left": path.read_text() if path.exists() else "0",
        "density_left": "0",
        "estimate": f"2.50 GPU-hours for {config.dump}",
    }


def assemble(run: str) -> dict[str, object]:
    root, _, rest = run.rpartition("/runs/")
    storage = open_storage(root)
    planned = json.loads(storage.read(f"runs/{rest}/plan.json"))
    base = versions.Version.model_validate(planned["base"]) if planned["base"] else None
    version = versions.Version(
        name=planned["dump"],
        run=f"runs/{rest}",
        ancestors=(*base.ancestors, base.name) if base else (),
        geometry=versions.Geometry(key="g", identity="i", corpus_grid="c"),
    )
    latest = versions.add(storage, planned["line"], version)
    versions.take_in(storage, planned["line"], planned["dump"].split("+"), version.run)
    told = planned | {"to": time.time(), "is_latest": latest}
    storage.write(f"runs/{rest}/done.json", json.dumps(told).encode())
    figures = {"pairs": 7, "earlier_pairs": 0, "sft_examples": 70, "parts_given_up": 0}
    dataset = storage.uri(versions.prefix(planned["line"], version.name))
    return {**figures, "is_latest": latest, "unchanged": False, "dataset": dataset}


def value(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


if __name__ == "__main__":
    main()
