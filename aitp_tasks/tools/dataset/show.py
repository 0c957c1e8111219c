"""dataset show: one version in figures: what it holds, who was left out and why, what was measured of it."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from aitp_tasks.config import RunConfig
from aitp_tasks.records import contents, evaluated, manifest, pairs, promoted, version_rows, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.dataset import catalog, examples
from aitp_tasks.tools.terminal import printable, wrapped

#: Of sources and dumps, so many lines for a person; the result has them all.
_SHOWN = 20
#: Pairs that are shown, and columns of the terminal.
_EXAMPLES, _WIDTH = 3, 110


def execute(config: RunConfig, version: str = versions.LATEST) -> dict[str, Any]:
    """Tell what is known of a version, and print it to standard error.

    Args:
        config: names the root and the dataset.
        version: its name, or ``latest``.

    Raises:
        InputError: there is no such version, or a file of it is missing or damaged.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    found = catalog.named(storage, line, version)
    result = {"stage": "dataset", "action": "show", "dataset": line, **facts(storage, line, found)}
    sys.stderr.write(render(result))
    return result


def facts(storage: Storage, line: str, version: Version) -> dict[str, Any]:
    """What is known of a version."""
    held, done = version.contents, catalog.assembled(storage, version)
    shares = shares_of_pairs(version_rows.columns(storage, line, version.name, ["origin", "dump", "source"]))
    said = versions.pointed(storage, line, versions.seen(storage, line))
    checkpoint, outcome = promoted.named(storage, line), promoted.outcome(storage, version.run)
    figures = done.figures if done else {}
    chosen = examples.first(version_rows.pair_ids(storage, line, version.name), _EXAMPLES)
    rows = version_rows.rows(storage, line, version.name, chosen)
    return {
        "version": version.name,
        "uri": storage.uri(versions.prefix(line, version.name)),
        "made_at": held.made_at if held else None,
        "base": version.ancestors[-1] if version.ancestors else None,
        "builds_on": len(version.ancestors),
        "run": version.run,
        "latest": said is not None and said.version == version.name,
        "rolled_back": said.rolled_back.get(version.name) if said else None,
        **catalog.counts(storage, version),
        **shares,
        "marks": catalog.marks_in(storage, line, version, pairs.marks_of(storage, line)),
        "models": {name: model.model_dump() for name, model in held.models.items()} if held else None,
        "texts_with_marks": held.marks.model_dump() if held else None,
        "removed": removed(done),
        "rewritten_share": figures.get("rewritten_share"),
        "coverage": figures.get("coverage"),
        "order": list(version.order),
        "refit_due": version.refit_due,
        "evaluated": _evaluated(storage, line, version),
        "promoted": {
            "checkpoint_is_latest": checkpoint == version.name,
            "decided": {"promoted": outcome[0], "why": outcome[1]} if outcome else None,
        },
        "examples": [examples.shown(rows[pair_id]) for pair_id in chosen],
    }


def _evaluated(storage: Storage, line: str, version: Version) -> dict[str, Any] | None:
    """What was measured of a version; what an earlier release has measured, only its run says."""
    told = evaluated.of_version(storage, line, version.name)
    if told is None:
        done = manifest.load(storage, f"{version.run}/evaluate/manifest.json")
        told = dict(done.figures) if done else {}
    return told.get("sets")


def shares_of_pairs(tables: Iterable[Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The pairs of a version by ``source`` and by ``dump``, each with its share of all pairs.

    Args:
        tables: its rows, with ``origin``, ``dump``, and ``source`` where its release has written that.
    """
    found: dict[str, Counter[str]] = {"source": Counter(), "dump": Counter()}
    for table in tables:
        rows = table.filter(pc.equal(table["origin"], "aitp"))
        for name, counter in found.items():
            column = name if name in rows.column_names else "dump"
            counter.update(value or "" for value in rows[column].to_pylist())
    return {f"by_{name}": _shares(counter) for name, counter in found.items()}


def _shares(counts: Counter[str]) -> dict[str, dict[str, Any]]:
    told = contents.shares(dict(counts), counts.total())
    return {name: {"pairs": share.rows, "share": share.share} for name, share in told.items()}


def removed(done: Manifest | None) -> dict[str, dict[str, int]] | None:
    """What a version's run has left out: by the reason, how many new and earlier pairs, and SFT examples.

    Of an earlier release, the earlier pairs by reason, and all else that its ledger has rejected.
    """
    if done is None:
        return None
    if "removed" in done.figures:
        return {rule: dict(counts) for rule, counts in done.figures["removed"].items()}
    left: Mapping[str, int] = done.figures.get("left", {})
    return {rule: {"new": 0, "earlier": count, "sft": 0} for rule, count in left.items() if count}


def render(result: dict[str, Any]) -> str:
    """The version as a person reads it."""
    told = catalog.told
    state = ["latest"] if result["latest"] else []
    state += [f"rolled back at {result['rolled_back']}"] if result["rolled_back"] else []
    marks, promotion = result["marks"], result["promoted"]
    head = [
        ("version", f"{result['version']}{f' ({printable(state[0])})' if state else ''}"),
        ("made at", told(result["made_at"])),
        ("builds on", result["base"] or "none"),
        ("run", result["run"]),
        ("rows", told(result["rows"])),
        ("SFT examples", told(result["sft_rows"])),
        ("pairs", f"{told(result['new_pairs'])} new, {told(result['earlier_pairs'])} earlier"),
        ("marks of people", f"{marks['good']:,} good, {marks['bad']:,} bad"),
        ("refit due", "yes" if result["refit_due"] else "no"),
        ("promoted", _promotion(promotion)),
    ]
    lines = [f"{name:<18}{value}" for name, value in head]
    for name, model in (result["models"] or {}).items():
        lines.append(f"{name:<18}{printable(model['name'])}@{model['revision'] or model['identity'][:12]}")
    if result["texts_with_marks"]:
        held = result["texts_with_marks"]
        lines.append(f"{'template marks':<18}in {held['rows']:,} rows ({held['setting']})")
    for name in ("by_dump", "by_source"):
        lines += ["", f"pairs {name.replace('_', ' ')}"]
        shares = list(result[name].items())
        lines += [
            f"  {one['pairs']:>9,}  {one['share']:7.2%}  {printable(key)}" for key, one in shares[:_SHOWN]
        ]
        lines += [f"  and {len(shares) - _SHOWN:,} more"] if len(shares) > _SHOWN else []
    lines += ["", "left out, by rule"]
    if result["removed"] is None:
        lines.append(f"  {catalog.NOT_ON_RECORD}: the run was deleted")
    for rule, counts in (result["removed"] or {}).items():
        what = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        lines.append(f"  {printable(rule)}: {what}")
    lines += _evaluation(result["evaluated"])
    for pair in result["examples"]:
        lines += ["", *wrapped(examples.text(pair), _WIDTH)]
    return "\n".join([*lines, ""])


def _promotion(told: Mapping[str, Any]) -> str:
    decided = told["decided"]
    said = ["its checkpoint is the latest"] if told["checkpoint_is_latest"] else []
    if decided:
        said.append(f"{'yes' if decided['promoted'] else 'no'}, {printable(decided['why'])}")
    return "; ".join(said) or catalog.NOT_ON_RECORD


def _evaluation(sets: Mapping[str, Any] | None) -> list[str]:
    if not sets:
        return []
    lines = ["", "evaluated on what is held out"]
    for name, found in sets.items():
        loss = ", ".join(f"{model} {_number(value, '.4g')}" for model, value in found.get("loss", {}).items())
        lines.append(f"  {printable(name)}: {found.get('n', 0):,} examples; loss {loss}")
        for against, value in found.items():
            if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
                mean, low, high = (_number(value[part], "+.4g") for part in ("mean", "low", "high"))
                lines.append(f"    {against.replace('_', ' ')}: {mean} ({low} to {high})")
    return lines


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
