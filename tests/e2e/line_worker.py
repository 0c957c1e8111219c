"""Stands in for ``aitp`` where only the order of runs counts: a real line, and stages that do nothing.

``plan`` builds on the latest version, ``assemble`` adds one to the line and writes
down that the run was under way between the two. A unit of ``embed`` is one shard, or
what ``embed-left`` in the run's folder names. There ``fail-STAGE`` or ``fail-STAGE-UNIT``
makes that fail once, with the exit code in the file, or with its text as the error of
wrong input; what ``hold-STAGE-UNIT`` names waits until the file is gone.
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
    folder, unit = Path(run.removeprefix("file://")), value(arguments, "--unit")
    as_told(folder, stage if unit is None else f"{stage}-{unit}")
    if stage == "units":
        result["units"] = units(run) if "embed" in arguments else units(run)[:1]
    if stage == "skip":
        with (folder / "skipped").open("a") as file:
            file.write(json.dumps(arguments) + "\n")
    if stage == "assemble":
        result |= assemble(run)
    if stage == "finetune":
        checkpoint = run.replace("/runs/", "/models/line/").removesuffix("/x")
        result |= {"checkpoint": checkpoint, "train_loss_first": 2.0, "train_loss_last": 1.0}
        result |= {"unchanged": False}
    if stage == "evaluate":
        table = {name: [20, 2.0, 1.5, 1.25, -0.25, -0.5, -0.125] for name in ("sft", "pairs", "documents")}
        result |= {"to_promote": True, "why": "it is better", "sets": table}
    if stage == "promote":
        (folder / "promote").write_text(json.dumps(arguments))
    held = {str(one["number"]): one["holds"] for one in units(run)} if stage == "embed" else {}
    print(json.dumps(result | {"parts": 1, "label": held.get(unit or "", dump_of(run))}))


def as_told(folder: Path, what: str) -> None:
    while (folder / f"hold-{what}").exists():
        time.sleep(0.1)
    for name in (what, what.partition("-")[0]):
        fail = folder / f"fail-{name}"
        if fail.exists():
            told = fail.read_text()
            fail.unlink()
            is_code = told.isdecimal()
            print(f"error: {told if told and not is_code else f'{name} was told to fail'}", file=sys.stderr)
            sys.exit(int(told) if is_code else 2)


def units(run: str) -> list[dict[str, object]]:
    dump, folder = dump_of(run), Path(run.removeprefix("file://"))
    names = [path.stem for path in sorted((folder.parents[2] / "corpus" / dump).glob("*.parquet"))]
    found = [{"number": number, "holds": f"{dump} {name}"} for number, name in enumerate(names)]
    left = folder / "embed-left"
    if left.exists():
        found = [
            {"number": int(number), "holds": f"{dump} part-{number}"} for number in left.read_text().split()
        ]
    return found


def dump_of(run: str) -> str:
    return run.split("/")[-2]


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
        "settings": settings,
    }
    storage.write(f"{key}/plan.json", json.dumps(told).encode())
    return {"run": storage.uri(key), "estimate": f"2.50 GPU-hours for {config.dump}"}


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
