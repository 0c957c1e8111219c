"""The way of a pair as a person reads it."""

from collections.abc import Mapping
from typing import Any

from aitp_tasks.tools.dataset import catalog
from aitp_tasks.tools.terminal import printable, wrapped

_WIDTH = 110
#: Characters of a document that are printed; the result has all of them.
_SHOWN = 20_000


def render(result: Mapping[str, Any]) -> str:
    """All of it, the texts last."""
    lines = [f"{name:<18}{value}" for name, value in (*_where(result), *_document(result), *_made(result))]
    lines += ["gates", *(f"  {line}" for line in map(_gate, result["gates"]))]
    for title, text in _texts(result):
        lines += ["", title, *(f"  {line}" for line in wrapped(text, _WIDTH))]
    return "\n".join([*lines, ""])


def _where(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    left = result["left"]
    if left is None:
        state = f"in {result['asked']}"
    else:
        like = [
            f"{name.replace('_', ' ')} {printable(str(left[name]))}"
            for name in left
            if name not in ("reason", "version")
        ]
        when = f" with {left['version']}" if left["version"] else ""
        state = f"not in {result['asked']}: {printable(left['reason'])}{when}" + (
            f" ({', '.join(like)})" if like else ""
        )
    found = result["found_in"] or "no version"
    mark = result["mark"]
    return [
        ("pair", result["pair_id"]),
        ("dataset", state),
        ("found in", f"{found}, came with {catalog.told(result['came_with'])}"),
        *([("mark", f"{mark['mark']}: {printable(mark['note'])}")] if mark else []),
    ]


def _document(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    told, found, span = catalog.told, result["document"], result["span"]
    place = f"{told(result['shard'])} row {told(result['row'])}"
    seen = (
        f"characters {span[0]:,} to {span[1]:,} of {result['characters']:,}"
        if span
        else catalog.NOT_ON_RECORD
    )
    plain = (
        ", counted with marks made plain"
        if result["marks_made_plain"] and span and span[1] < result["characters"]
        else ""
    )
    lines = [
        ("dump", told(result["dump"])),
        ("source", told(result["source"])),
        ("document", told(result["doc_id"])),
        ("place", f"{place}, entity tag {told(result['etag'])}"),
        *([("", printable(found["why"]))] if found and found["why"] else []),
        ("seen", seen + plain),
        ("density ratio", _number(result["density_ratio"])),
        ("p_corpus, p_sft", f"{_number(result['p_corpus'])}, {_number(result['p_sft'])}"),
        ("coordinates", ", ".join(map(_number, result["coordinates"] or [])) or catalog.NOT_ON_RECORD),
    ]
    return lines + ([("region", told(result["region"]))] if result["region"] is not None else [])


def _made(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = catalog.told
    identity = f"revision {told(result['revision'])}, identity {told(result['model_identity'])}"
    lines = [
        ("run", told(result["run"])),
        *([("", printable(result["no_run"]))] if result["no_run"] else []),
        ("model", f"{told(result['model'])}, {identity}"),
    ]
    versions, sampling = result["prompt_versions"], result["sampling"] or {}
    for name, digest in (result["prompt_digests"] or {}).items():
        how = ", ".join(f"{key} {value}" for key, value in sampling.get(name, {}).items())
        lines.append((f"prompt {name}", f"version {told(versions.get(name))}, {digest}, {printable(how)}"))
    return lines


def _gate(gate: Mapping[str, Any]) -> str:
    passed = catalog.NOT_ON_RECORD if gate["passed"] is None else "passed"
    if gate["passed"] is False:
        passed = f"not passed: {printable(str(gate['reason']))}"
    scores = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in gate.get("scores", {}).items()
        if value is not None
    )
    # What is not set decides nothing.
    set_ones = {name: value for name, value in (gate["settings"] or {}).items() if value not in (None, [])}
    settings = ", ".join(f"{name} {value}" for name, value in set_ones.items())
    told = (passed, scores, f"by {printable(settings)}" if settings else "")
    return f"{gate['stage']:<10}{'; '.join(part for part in told if part)}"


def _texts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    text, span, found = result["text"], result["span"], result["document"]
    shown = []
    if text is None:
        shown.append(("document", catalog.NOT_ON_RECORD))
    else:
        end = span[1] if span else len(text)
        told = text[: min(end, _SHOWN)]
        more = f" … and {end - len(told):,} characters" if end > len(told) else ""
        kept = ", as its run has kept it" if found and found["text_from"] == "run" else ""
        shown.append((f"document, as far as it was seen{kept}", told + more))
    return [*shown, ("question", result["question"]), ("answer", result["answer"])]


def _number(value: float | None) -> str:
    return catalog.NOT_ON_RECORD if value is None else f"{value:.4g}"
