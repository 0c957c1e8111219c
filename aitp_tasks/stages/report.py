"""report: one self-contained HTML page about the run.

Reads the manifests of all stages, the density grids, the scores and a few pairs.
Writes ``runs/<dump>/<digest>/report/report.html``, and its pictures beside it.
facts.py gathers, pictures.py draws, page.py writes.
"""

import logging
from typing import Any

from aitp_tasks.records import data_files, promoted
from aitp_tasks.records.manifest import Manifest, Stopwatch
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)

STAGE = "report"
_RESULT = (
    "documents",
    "selected",
    "questions",
    "kept",
    "pairs",
    "train_loss_first",
    "train_loss_last",
)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Write the report, unless it has been written.

    Raises:
        InputError: an earlier stage has not been run.
    """
    done = run.find_manifest(STAGE) or _report(run)
    assembled = run.require_manifest("assemble")
    finetuned = run.require_manifest("finetune")
    return {
        "stage": STAGE,
        "run": run.uri,
        "label": done.label,
        "seconds": done.seconds,
        **{name: done.figures[name] for name in _RESULT},
        "report": run.storage.uri(done.output("page")),
        "dataset": run.storage.uri(data_files.folder(assembled)),
        "checkpoint": run.storage.uri(finetuned.output("checkpoint")),
    }


def _decision(run: Run, evaluated: Manifest | None) -> str:
    """Whether the version is promoted, as it was when the page was written."""
    if evaluated is None:
        return ""
    from aitp_tasks.evaluation.promotion import Decision

    told = promoted.noted(run)
    return Decision(*told).sentence if told else "not promoted yet: `aitp promote` has not been run"


def _report(run: Run) -> Manifest:
    from aitp_tasks.report import facts, page

    watch = Stopwatch()
    gathered = facts.gather(run)
    drawn = page.draw(gathered, run.config.gates)
    html = page.render(run, gathered, drawn, _decision(run, gathered.evaluate)).encode()
    outputs = {"page": run.key(STAGE, "report.html")}
    run.storage.write(outputs["page"], html)
    for name, picture in drawn.items():
        outputs[name] = run.key(STAGE, f"{name}.{picture.kind}")
        run.storage.write(outputs[name], picture.data)
    log.info("report bytes=%d samples=%d", len(html), len(gathered.samples))
    return run.commit(
        Manifest(
            stage=STAGE,
            label=gathered.assemble.label,
            outputs=outputs,
            figures=gathered.headline,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )
