"""index: the corpus's vectors become one index, in which each document lies once.

Reads the manifests of all embed and density units, the documents' ids and rows,
and the vectors, or where merge has trained a quantiser the codes that the density
units have made of them: nothing here passes over the vectors of a large corpus.
Writes ``index/<encoder digest>/<dump>/<content>/``: the index and its places, which
say of each id where its document lies. Checks that the index holds as many vectors
as there are documents. Holds some 100 MB, whatever the corpus; the temporary folder
holds the index twice.
"""

from typing import Any

from aitp_tasks.records import embedded, indexed, projected
from aitp_tasks.records.manifest import Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.vector_index import build, quantiser


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Build the corpus's index.

    Raises:
        InputError: a group was not projected, or its vectors or codes are missing or damaged.
    """
    watch = Stopwatch()
    done = run.find_manifest("index") or _index(run, watch)
    return {
        "stage": "index",
        "run": run.uri,
        "label": run.config.dump,
        **{name: done.figures[name] for name in ("kind", "documents", "repeated", "collisions", "bytes")},
        "seconds": watch.seconds(),
    }


def _index(run: Run, watch: Stopwatch) -> Manifest:
    trained = indexed.quantiser_key(run)
    built = build.build(
        run.storage,
        f"index/{run.plan.encoder_digest}/{run.config.dump}",
        run.config.dump,
        _shards(run),
        None if trained is None else quantiser.load(run.storage, trained),
    )
    return run.commit(
        Manifest(
            stage="index",
            label=run.config.dump,
            ledger=built.ledger,
            outputs=indexed.outputs("corpus", built),
            figures=built.figures,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _shards(run: Run) -> list[build.Shard]:
    """The shards of the corpus, with what the density units have made of them."""
    return [
        build.Shard.of(shard, documents=coordinates.output("coordinates"), encoded=encoded)
        for group in run.plan.groups_of("corpus")
        for shard, coordinates, encoded in zip(
            embedded.shards(run, group),
            projected.shards(run, group),
            projected.keys(run, group, "encoded"),
            strict=True,
        )
    ]
