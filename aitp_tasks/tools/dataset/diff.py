"""dataset diff: what one version has that another has not, and why; figures, shares, and some pairs of both.

Pairs are compared by their ids, SFT examples by digests of what they say, which are read only
where the SFT set is another one. Texts are read of the examples alone.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.records import pairs, version_rows
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.dataset import catalog, examples, leaving, sft_rows, show
from aitp_tasks.tools.terminal import printable, side_by_side

#: Ids that are named of each kind, and pairs that are shown.
_NAMED, _EXAMPLES = 200, 3
#: Columns of the terminal on each side, and sources or dumps that are shown.
_WIDTH, _SHARES = 68, 20
_GONE = "sft_example_gone"
_OF_PAIRS = ["origin", "pair_id", "dump", "source", "version"]


@dataclass(frozen=True)
class _Held:
    """The pairs of a version.

    Attributes:
        came_with: the version that each came with, by its id; None where its release has not written that.
        shares: by source and by dump.
    """

    came_with: dict[str, str | None]
    shares: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def read(cls, storage: Storage, line: str, version: Version) -> "_Held":
        came_with: dict[str, str | None] = {}

        def tables() -> Iterable[Any]:
            for table in version_rows.columns(storage, line, version.name, _OF_PAIRS):
                rows = table.filter(table["pair_id"].is_valid())
                known = rows["version"] if "version" in rows.column_names else [None] * len(rows)
                came_with.update(zip(rows["pair_id"].to_pylist(), map(_plain, known), strict=True))
                yield rows

        shares = show.shares_of_pairs(tables())
        return cls(came_with, shares)


def execute(config: RunConfig, before: str, after: str) -> dict[str, Any]:
    """Compare two versions, and print it to standard error.

    Args:
        config: names the root and the dataset.
        before: name of a version, or ``latest``.
        after: of another.

    Raises:
        InputError: there is no such version, or a file of one is missing or damaged.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    first, second = (catalog.named(storage, line, name) for name in (before, after))
    held = _Held.read(storage, line, first), _Held.read(storage, line, second)
    gone = {key: came for key, came in held[0].came_with.items() if key not in held[1].came_with}
    new = {key: came for key, came in held[1].came_with.items() if key not in held[0].came_with}
    reasons = leaving.why(storage, line, first, second, gone)
    result = {
        "stage": "dataset",
        "action": "diff",
        "dataset": line,
        "before": first.name,
        "after": second.name,
        "added": {"pairs": len(new), "ids": _some(new), "came_with": _by(new)},
        "removed": {
            reason: {"pairs": len(ids), "ids": _some(ids)} for reason, ids in _by_reason(reasons).items()
        },
        "removed_pairs": len(gone),
        "unchanged_pairs": len(held[0].came_with) - len(gone),
        "sft": _sft(storage, line, first, second),
        "changed_figures": _changed(storage, line, first, second),
        **{
            f"share_{name}": _both(held[0].shares[name], held[1].shares[name])
            for name in ("by_source", "by_dump")
        },
        "examples": _examples(storage, line, first, second, gone, new, reasons),
    }
    sys.stderr.write(render(result))
    return result


def _plain(value: Any) -> str | None:
    found = value.as_py() if value is not None else None
    return None if found is None else str(found)


def _some(ids: Iterable[str]) -> list[str]:
    return sorted(examples.first(ids, _NAMED))


def _by(came_with: Mapping[str, str | None]) -> dict[str, int]:
    found = Counter(name or leaving.NOT_ON_RECORD for name in came_with.values())
    return dict(sorted(found.items()))


def _by_reason(reasons: Mapping[str, leaving.Left]) -> dict[str, list[str]]:
    """Ids by why they are gone, the commonest reason first."""
    found: dict[str, list[str]] = {}
    for key, left in reasons.items():
        found.setdefault(left.reason, []).append(key)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _sft(storage: Storage, line: str, first: Version, second: Version) -> dict[str, Any]:
    """What became of the SFT examples."""
    rows = [catalog.counts(storage, version)["sft_rows"] for version in (first, second)]
    same = bool(first.sft) and first.sft == second.sft and rows[0] == rows[1]
    gone, new = (
        (0, 0) if same or first == second else sft_rows.difference(storage, line, first.name, second.name)
    )
    # Which of them a gate has left out, and which are in the set no more, no run says.
    gates = {
        rule: one["sft"] for rule, one in (show.removed(catalog.assembled(storage, second)) or {}).items()
    }
    left_by_gates = {rule: count for rule, count in gates.items() if count}
    reason = leaving.NOT_ON_RECORD if left_by_gates else _GONE
    return {"added": new, "removed": {reason: gone} if gone else {}, "left_out_by_gates": left_by_gates}


def _changed(storage: Storage, line: str, first: Version, second: Version) -> dict[str, list[Any]]:
    """The figures that differ, each of the first and of the second."""
    one, other = (_figures(storage, line, version) for version in (first, second))
    # Of a version of an earlier release there are fewer.
    values = {name: [one.get(name), other.get(name)] for name in {**one, **other}}
    return {name: both for name, both in values.items() if both[0] != both[1]}


def _figures(storage: Storage, line: str, version: Version) -> dict[str, Any]:
    done, held = catalog.assembled(storage, version), version.contents
    figures = done.figures if done else {}
    coverage = figures.get("coverage") or {}
    marks = catalog.marks_in(storage, line, version, pairs.marks_of(storage, line))
    return {
        **catalog.counts(storage, version),
        "rewritten_share": figures.get("rewritten_share"),
        "uncovered": figures.get("uncovered"),
        "divergence": _after(coverage, "divergence"),
        "order": list(version.order),
        "geometry": version.geometry.key,
        "marked_good": marks["good"],
        "marked_bad": marks["bad"],
        **{
            name: f"{model.name}@{model.identity[:12]}"
            for name, model in (held.models if held else {}).items()
        },
        "texts_with_marks": held.marks.rows if held else None,
    }


def _after(coverage: Mapping[str, Any], name: str) -> Any:
    found = coverage.get(name)
    return found["after"]["value"] if found else None


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[float]]:
    """Shares of the pairs of both versions, the largest first."""
    none = {"share": 0.0}
    found = {
        name: [first.get(name, none)["share"], second.get(name, none)["share"]]
        for name in {**first, **second}
    }
    return dict(sorted(found.items(), key=lambda item: (-max(item[1]), item[0])))


def _examples(
    storage: Storage,
    line: str,
    first: Version,
    second: Version,
    gone: Mapping[str, Any],
    new: Mapping[str, Any],
    reasons: Mapping[str, leaving.Left],
) -> list[dict[str, Any]]:
    """Some pairs side by side: one question with two answers first, then what is gone beside what is new."""
    answers = {_question(key): key for key in sorted(new)}
    both = {key: answers[_question(key)] for key in gone if _question(key) in answers}
    changed = [(key, both[key]) for key in examples.first(both, _EXAMPLES)]
    left = examples.first(gone.keys() - both.keys(), _EXAMPLES)
    right = examples.first(new.keys() - set(both.values()), _EXAMPLES)
    beside = [
        (left[number] if number < len(left) else None, right[number] if number < len(right) else None)
        for number in range(max(len(left), len(right)))
    ]
    chosen = changed + beside
    before = version_rows.rows(storage, line, first.name, {one for one, _ in chosen if one})
    after = version_rows.rows(storage, line, second.name, {other for _, other in chosen if other})
    return [
        {
            "before": examples.shown(before[one]) | {"reason": reasons[one].reason} if one else None,
            "after": examples.shown(after[other]) if other else None,
        }
        for one, other in chosen
    ]


def _question(pair_id: str) -> str:
    """Document and question of a pair: its id without the digest of the answer."""
    return pair_id.rpartition("-")[0] or pair_id


def render(result: dict[str, Any]) -> str:
    """The comparison as a person reads it."""
    told = catalog.told
    added, sft = result["added"], result["sft"]
    lines = [f"{result['before']} -> {result['after']}", ""]
    lines.append(f"pairs added       {added['pairs']:,}")
    lines += [f"  {count:>9,}  came with {printable(name)}" for name, count in added["came_with"].items()]
    lines.append(f"pairs removed     {result['removed_pairs']:,}")
    lines += [f"  {one['pairs']:>9,}  {_words(reason)}" for reason, one in result["removed"].items()]
    lines.append(f"pairs unchanged   {result['unchanged_pairs']:,}")
    lines.append(f"SFT examples      {sft['added']:,} added, {sum(sft['removed'].values()):,} removed")
    lines += [f"  {count:>9,}  {_words(reason)}" for reason, count in sft["removed"].items()]
    lines += ["", "figures that differ"]
    lines += [
        f"  {name.replace('_', ' '):<18}{told(one)} -> {told(other)}"
        for name, (one, other) in result["changed_figures"].items()
    ]
    for name in ("source", "dump"):
        shares = list(result[f"share_by_{name}"].items())
        lines += ["", f"share of the pairs by {name}"]
        lines += [f"  {one:7.2%} -> {other:7.2%}  {printable(key)}" for key, (one, other) in shares[:_SHARES]]
        lines += [f"  and {len(shares) - _SHARES:,} more"] if len(shares) > _SHARES else []
    for example in result["examples"]:
        lines += ["", *_beside(example["before"], example["after"])]
    return "\n".join([*lines, ""])


def _words(reason: str) -> str:
    return printable(reason).replace("_", " ")


def _beside(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """A pair of each version in two columns."""
    return side_by_side(_text(before, "removed"), _text(after, "added"), _WIDTH)


def _text(pair: Mapping[str, Any] | None, what: str) -> str:
    if pair is None:
        return f"({what}: no more pairs)"
    why = f" ({_words(pair['reason'])})" if "reason" in pair else ""
    return f"{what}{why} {examples.text(pair)}"
