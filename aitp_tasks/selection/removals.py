"""The removal report: what each gate of assemble has left out, by which rule, with a few examples."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aitp_tasks.config import RunConfig, Verdict
from aitp_tasks.records import digest, generated
from aitp_tasks.records.held_out import HELD_OUT
from aitp_tasks.records.marks import HOLDS_MARKS
from aitp_tasks.records.run import Run
from aitp_tasks.selection import contest, incoming, pair_gates
from aitp_tasks.selection.contamination.guard import CONTAMINATED, Guard
from aitp_tasks.selection.contamination.report import Found
from aitp_tasks.selection.personal_data import PersonalData

#: Outputs of assemble's manifest.
REMOVALS, SUMMARY, HITS = "removals", "contamination", "contamination_hits"
NEAR_DUPLICATE = "near_duplicate"
_EXAMPLES = 10
_EXCERPT_CHARACTERS = 160
#: Of a question, and of its answer, where both are shown.
_HALF_CHARACTERS = 78
#: The settings that decide, by the reason; what is not named here is decided by a person's mark or the like.
_SETTINGS = {
    CONTAMINATED: ("contamination.ngram", "contamination.min_share", "contamination.max_similarity"),
    NEAR_DUPLICATE: ("assemble.max_similarity",),
    contest.TWIN: ("assemble.max_similarity",),
    contest.NO_ROOM: ("assemble.max_rewritten_share", "assemble.order"),
    incoming.NEAR_TEXT: ("assemble.max_text_similarity",),
    pair_gates.LANGUAGE: ("assemble.languages",),
    pair_gates.OPENING: ("assemble.max_same_opening",),
    pair_gates.SOURCE: ("assemble.max_pairs_per_source",),
    "question_too_short": ("assemble.min_question_words",),
    "question_too_long": ("assemble.max_question_words",),
    "answer_too_short": ("assemble.min_answer_words",),
    "answer_too_long": ("assemble.max_answer_words",),
    "prompt_withdrawn": ("assemble.withdrawn_prompts",),
    HELD_OUT: ("evaluate.held_out",),
    HOLDS_MARKS: ("assemble.marks",),
    **dict.fromkeys((f"{generated.JUDGED}{verdict}" for verdict in Verdict), ("gates.min_faithfulness",)),
}
#: For these SFT examples are left out too, and counted alone.
_OF_SFT = (HELD_OUT, HOLDS_MARKS)


def told(
    config: RunConfig,
    left: Iterable[Mapping[str, Any]],
    duplicates: Iterable[Mapping[str, Any]],
    dropped: Iterable[Found],
    rejected: Mapping[str, int],
    unfaithful: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """What each rule has left out, the most first.

    Args:
        config: of the run.
        left: rows of ``left_out.SCHEMA``.
        duplicates: rows of ``near_duplicates.SCHEMA``.
        dropped: SFT examples that hold an evaluation item.
        rejected: how many rows of the SFT set are not in the version, by the reason.
        unfaithful: answers that the judge has left out, before they were pairs.

    Returns:
        For each reason: ``rule``, the ``settings`` that decide as they are set, how many ``new`` and
        ``earlier`` pairs and ``sft`` examples, and ``examples``.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in left:
        _count(config, found, row["reason"], "earlier" if row["earlier"] else "new", _example(row))
    for row in duplicates:
        _count(config, found, NEAR_DUPLICATE, "new", _example(row))
    for one in dropped:
        example = {"id": one.row, "excerpt": one.excerpt, "like": one.item, "similarity": one.similarity}
        _count(config, found, CONTAMINATED, "sft", example)
    for row in unfaithful:
        said = f"{row['question'][:_HALF_CHARACTERS]} → {row['answer'][:_HALF_CHARACTERS]}"
        example = {"id": row["pair_id"], "excerpt": said, "like": None, "similarity": None}
        _count(config, found, row["reason"], "new", example)
    for rule in _OF_SFT:
        if rejected.get(rule):
            _under(config, found, rule)["sft"] += rejected[rule]
    return sorted(found.values(), key=lambda one: (-_removed(one), one["rule"]))


def settings(config: RunConfig) -> dict[str, Any]:
    """All settings by which pairs are left out, by name."""
    names = sorted({name for rule in _SETTINGS.values() for name in rule})
    return {name: _value(config, name) for name in names}


def write(run: Run, removed: Sequence[Mapping[str, Any]], guard: Guard) -> dict[str, str]:
    """Write what was left out, and what was found of the evaluation sets, where there is any; their keys."""
    files = {REMOVALS: ("json", json.dumps(removed, ensure_ascii=False, indent=1))} if removed else {}
    if guard:
        files |= {SUMMARY: ("tsv", guard.report.summary()), HITS: ("tsv", guard.report.hits())}
    outputs = {}
    for name, (ending, text) in files.items():
        data = text.encode("utf-8", "replace")
        stem = name.replace("_", "-")
        outputs[name] = run.key("assemble", f"{stem}-{digest.of_bytes(data)}.{ending}")
        run.storage.write_if_absent(outputs[name], data)
    return outputs


def figures(removed: Sequence[Mapping[str, Any]], guard: Guard, personal: PersonalData) -> dict[str, Any]:
    """The same as figures of the manifest, without examples; nothing where nothing was compared."""
    counts = {one["rule"]: {name: one[name] for name in ("new", "earlier", "sft")} for one in removed}
    figures: dict[str, Any] = {"removed": counts} if counts else {}
    if guard:
        rows = [{k: v for k, v in one.items() if k != "examples"} for one in guard.report.figures()]
        figures["contamination"] = {"sets": guard.sets.figures(), "found": rows}
    if personal:
        figures["personal_data"] = personal.figures()
    return figures


def _count(
    config: RunConfig, found: dict[str, dict[str, Any]], rule: str, what: str, example: dict[str, Any]
) -> None:
    one = _under(config, found, rule)
    one[what] += 1
    if len(one["examples"]) < _EXAMPLES:
        one["examples"].append(example)


def _under(config: RunConfig, found: dict[str, dict[str, Any]], rule: str) -> dict[str, Any]:
    """What is told of a rule, nothing as yet where it is new."""
    return found.setdefault(
        rule,
        {
            "rule": rule,
            "settings": {name: _value(config, name) for name in _SETTINGS.get(rule, ())},
            **{"new": 0, "earlier": 0, "sft": 0, "examples": []},
        },
    )


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    nearest = row.get("nearest_pair_id") or row.get("nearest_shard")
    place = f"{nearest}:{row['nearest_row']}" if row.get("nearest_row") is not None else nearest
    return {
        "id": row["pair_id"],
        "excerpt": row["question"][:_EXCERPT_CHARACTERS],
        "like": row.get("like") or place,
        "similarity": row["similarity"],
    }


def _value(config: RunConfig, name: str) -> Any:
    section, _, setting = name.partition(".")
    return config.model_dump(mode="json", include={section: {setting}})[section][setting]


def _removed(one: Mapping[str, Any]) -> int:
    return int(one["new"] + one["earlier"] + one["sft"])
