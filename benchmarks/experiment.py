"""Does it help, and does the plane choose well? Base, SFT set alone, AITP, and four other ways to choose.

All 406 documents of the demo are the corpus, a quarter of its 999 examples the SFT set. Each arm selects half
of the documents by its own criterion (``random``: by their hashes), and trains on the SFT set and as many
pairs of these documents, for as many steps of as many tokens, with three seeds. All models are compared
on what none of them has seen: (a) SFT examples, (b) pairs of held-out documents, (c) these documents as text;
(b) and (c) apart for documents in the difference set of ``density_ratio`` and for the others.

Every arm is a run of the product's own commands in one folder; what is done there is not done
again, so that the experiment goes on where it was stopped. The last line of output is JSON.

    make experiment
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measure import processor, timed
from numpy.typing import NDArray

from aitp_tasks.config import Finetune
from aitp_tasks.evaluation import baseline, intervals, losses
from aitp_tasks.evaluation.losses import Text
from aitp_tasks.machine import base_model, processors
from aitp_tasks.records import held_out, published, selected, tables, versions
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.run import Run
from aitp_tasks.training import session

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".aitp/experiment"
SEEDS = (0, 1, 2)
BASE, SFT_ONLY, AITP, RANDOM = "base", "sft_only", "density_ratio", "random"
#: What each arm sets; the first is the product's.
ARMS: dict[str, dict[str, Any]] = {
    AITP: {},
    # Above every score, so that hashes alone decide.
    RANDOM: {"difference.target_share": None, "difference.tau": 1e9, "difference.max_documents": 203},
    "authors_compat": {"difference.criterion": "authors_compat"},
    "knn": {"difference.criterion": "knn"},
    "gaussian": {"difference.criterion": "gaussian"},
}
#: Everything is rewritten, once for all arms, and nothing is trained.
_WHOLE = {"difference.target_share": None, "difference.tau": 1e9, "assemble.max_rewritten_share": 1.0}
#: How the sets are called in the table: what is in the difference set of AITP, and the rest.
_INSIDE, _OUTSIDE = "in the difference set", "other"

#: Of the SFT set, so that an epoch is short.
_EVERY = 4
_STAGES = ("embed", "merge", "density", "difference", "rewrite", "score", "answer", "assemble")

Losses = NDArray[np.float64]


def main() -> None:
    """Run every arm, and print the table of all that are done."""
    _provide()
    whole = _run("whole", _WHOLE, SEEDS[0])
    runs = {(arm, seed): _run(arm, changes, seed) for seed in SEEDS for arm, changes in ARMS.items()}
    inside = {
        row["doc_id"]
        for part in runs[AITP, SEEDS[0]].parts
        for row in selected.documents(runs[AITP, SEEDS[0]], part, ["doc_id"])
    }
    texts = _texts(whole)
    names = [_set(name, text.id, inside) for name, text in texts]
    found = {(BASE, 0): _losses(BASE, None, whole, texts)}
    for seed in SEEDS:
        alone = runs[AITP, seed]
        _trained(f"{AITP}-{seed}", alone)
        found[SFT_ONLY, seed] = _losses(f"{SFT_ONLY}-{seed}", _alone(alone), alone, texts)
        for arm in ARMS:
            run = runs[arm, seed]
            found[arm, seed] = _losses(f"{arm}-{seed}", _trained(f"{arm}-{seed}", run), run, texts)
    _print(found, names, runs)


def _provide() -> None:
    """The demo's corpus, and every fourth example of its SFT set, as the experiment's own storage."""
    data, storage = REPOSITORY / ".aitp/data", FOLDER / "storage"
    for source in (data / "corpus").rglob("*.parquet"):
        target = storage / source.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.hardlink_to(source)
    some = storage / "sft/alpaca/alpaca-00000.parquet"
    if not some.exists():
        some.parent.mkdir(parents=True)
        whole = pq.read_table(data / "sft/alpaca")
        pq.write_table(whole.take(np.arange(0, len(whole), _EVERY)), some)


def _run(arm: str, changes: dict[str, Any], seed: int) -> Run:
    """Make the dataset of one arm, as a person would on the shell."""
    name = f"{arm}-{seed}"
    done = FOLDER / f"{name}.run"
    if done.exists():
        return Run.open(done.read_text())
    settings = {
        "root": f"file://{FOLDER}/storage",
        "assemble.dataset": name,
        "difference.seed": seed,
        "finetune.seed": seed,
        **changes,
    }
    configured = ["--config", str(REPOSITORY / "benchmarks/experiment.yaml")]
    for key, value in settings.items():
        configured += ["--set", f"{key}={json.dumps(value)}"]
    planned, _, _ = timed(["plan", *configured])
    uri, units, seconds = planned["run"], {"embed": planned["embed_units"]}, 0.0
    units["density"] = units["embed"]
    for stage in _STAGES:
        for arguments in _units(stage, units):
            result, taken, _ = timed([stage, "--run", uri, *arguments])
            seconds += taken
            if stage == "difference":
                units |= dict.fromkeys(("rewrite", "score", "answer"), result["parts"])
    print(f"{name}: {seconds:.0f} s, {uri}", flush=True)
    done.write_text(uri)
    return Run.open(uri)


def _units(stage: str, units: dict[str, int]) -> Iterator[list[str]]:
    if stage not in units:
        yield []
    for unit in range(units.get(stage, 0)):
        yield ["--unit", str(unit)]


def _texts(whole: Run) -> list[tuple[str, Text]]:
    """What is held out of all arms, ready to be read."""
    settings, assembled = whole.config.finetune, whole.require_manifest("assemble")
    job, maker = session.prepare(settings, FOLDER)
    conversations = {
        name: tables.read(whole.storage, assembled.outputs[f"held_out_{name}"]).to_pylist()
        for name in (SFT, PAIRS)
    }
    sets = {name: losses.of_conversations(rows, maker, job.finetune) for name, rows in conversations.items()}
    documents = (
        {"id": row["doc_id"], "text": row["text"]}
        for part in whole.parts
        for row in selected.documents(whole, part, ["doc_id", "text"])
        if held_out.is_held_out(row["doc_id"], whole.config.evaluate.held_out)
    )
    most = whole.config.evaluate.max_examples
    rows = held_out.first(documents, "id", most)
    sets[DOCUMENTS] = losses.of_documents(rows, base_model.load_tokenizer(job.finetune), settings.max_length)
    return [(name, text) for name, found in sets.items() for text in found.texts]


def _set(name: str, identity: str, inside: set[str]) -> str:
    if name == SFT:
        return "SFT examples"
    # A pair's id begins with its document's.
    place = _INSIDE if identity.partition("-")[0] in inside else _OUTSIDE
    return f"{name}, {place}"


def _trained(name: str, run: Run) -> str:
    """Prefix of the model that was trained on an arm's dataset."""
    if run.find_manifest("finetune") is None:
        _, seconds, _ = timed(["finetune", "--run", run.uri])
        print(f"{name}: trained in {seconds:.0f} s", flush=True)
    return published.committed_prefix(run, run.require_manifest("finetune"), "checkpoint")


def _alone(run: Run) -> str:
    """Prefix of the model that was trained on the SFT set alone, for as many steps."""
    assembled = run.require_manifest("assemble")
    version = versions.load(run.storage, run.config.assemble.dataset, assembled.figures["version"])
    length = baseline.Length.of(run.require_manifest("finetune"))
    where = baseline.key(run, version.sft, length)
    return baseline.make(run, "evaluate", where, assembled, length).output("checkpoint")


def _losses(name: str, checkpoint: str | None, run: Run, texts: list[tuple[str, Text]]) -> Losses:
    """The loss of one model on every text, in nats per token; float64 (n,)."""
    import torch

    kept = FOLDER / f"{name}.npy"
    if kept.exists() and len(found := np.load(kept, allow_pickle=False)) == len(texts):
        return np.asarray(found, np.float64)
    settings: Finetune = run.config.finetune
    if checkpoint is not None:
        settings = settings.model_copy(update={"model": str(FOLDER / "storage" / checkpoint)})
    dtype = torch.bfloat16 if processors.compute_bfloat16() else torch.float32
    found = losses.of_model(base_model.load_model(settings, dtype), [text for _, text in texts])
    np.save(kept, found)
    print(f"{name}: losses on {len(texts)} texts", flush=True)
    return found


def _print(found: dict[tuple[str, int], Losses], names: list[str], runs: dict[tuple[str, int], Run]) -> None:
    """One table for each set; then how training went, and all figures as JSON."""
    means = {
        arm: np.mean([values for (name, _), values in found.items() if name == arm], axis=0)
        for arm in dict.fromkeys(arm for arm, _ in found)
    }
    figures: dict[str, Any] = {}
    for kind in dict.fromkeys(names):
        place = np.flatnonzero([name == kind for name in names])
        print(f"\n{kind} ({len(place)})\n\n| model | loss | minus SFT alone | by seed | minus random |")
        print("|---|---|---|---|---|")
        for arm, values in means.items():
            own = [losses_of[place].mean() for (name, _), losses_of in found.items() if name == arm]
            alone = _told(means, arm, SFT_ONLY, place)
            other = _told(means, arm, RANDOM, place) if arm in ARMS and arm != RANDOM else ""
            seeds = ", ".join(f"{own_loss:.4f}" for own_loss in own)
            print(f"| {arm} | {values[place].mean():.4f} | {alone} | {seeds} | {other} |")
            figures.setdefault(kind, {})[arm] = round(float(values[place].mean()), 4)
    print("\n| arm | pairs | examples | training loss, first and last quarter |\n|---|---|---|---|")
    for (arm, seed), run in runs.items():
        assembled, trained = (
            run.require_manifest("assemble").figures,
            run.require_manifest("finetune").figures,
        )
        loss = f"{trained['train_loss_first']} to {trained['train_loss_last']}"
        print(f"| {arm}, {seed} | {assembled['pairs']} | {trained['examples']} | {loss} |")
    print(json.dumps(figures | {"processor": processor()}))


def _told(means: dict[str, Losses], arm: str, other: str, place: NDArray[np.intp]) -> str:
    """The mean difference of two arms with its interval over the texts."""
    if arm == other:
        return ""
    found = intervals.between(means[arm][place], means[other][place])
    if found.low is None:
        return f"{found.mean:+.4f}" if found.mean is not None else ""
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


if __name__ == "__main__":
    main()
