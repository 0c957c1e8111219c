"""How many are left after each step of a run, from the documents of its dumps to the pairs of its version.

What stands between the answers and the pairs adds up: answers without those that an earlier
version has, and without those that a rule has left out, are the new pairs.
"""

from collections.abc import Iterable

from aitp_tasks.records import generated
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run

#: In assemble's ledger, the pairs of the run that the version before has.
KNOWN = "in_an_earlier_version"


def of_run(run: Run, assembled: Manifest) -> list[tuple[str, int]]:
    """Names of the steps, and how many each leaves or takes away.

    Raises:
        InputError: an earlier stage has not been run.
    """
    embedded = [
        run.require_manifest("embed", group.digest, what=f"embed of {group.label}")
        for group in run.plan.groups_of("corpus")
    ]
    difference = run.require_manifest("difference").figures
    scored, answered = (
        [generated.part_manifest(run, stage, part) for part in generated.parts(run, stage)]
        for stage in ("score", "answer")
    )
    assert assembled.ledger is not None
    # What a judge has left out is told among the rules, and is none of the answers that are counted here.
    removed = sum(
        int(counts["new"])
        for rule, counts in assembled.figures.get("removed", {}).items()
        if not rule.startswith(generated.JUDGED)
    )
    return [
        ("documents", _sum(embedded).rows_out),
        ("of these below τ: hardly covered", int(difference["below_tau"])),
        ("documents drawn of these", int(difference["selected"])),
        ("questions", _sum(scored).rows_in),
        ("questions kept by their scores", _sum(scored).rows_out),
        ("questions with an answer", _sum(answered).rows_out),
        ("– of these, in an earlier version already", assembled.ledger.rejected.get(KNOWN, 0)),
        ("– of these, left out by the rules below", removed),
        ("new pairs in this version", int(assembled.figures["pairs"])),
    ]


def _sum(units: Iterable[Manifest]) -> Ledger:
    total = Ledger(rows_in=0, rows_out=0)
    for unit in units:
        total = total.plus(unit.ledger or Ledger(rows_in=0, rows_out=0))
    return total
