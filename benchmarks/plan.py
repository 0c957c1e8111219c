"""Seconds and peak memory of ``aitp plan`` over a dump of very many small shards.

Every shard is the same small file, Parquet or JSON Lines, under a key of its own. It is planned
for the first time, again unchanged, and again with 1% new shards; in a folder,
and in a SeaweedFS that is started here and shares the processor. Seconds are of
the whole process, start-up included. The last line of output is JSON.

    make bench-plan
    .venv/worker/bin/python benchmarks/plan.py --shards 100000 --s3-shards 20000
"""

import argparse
import gzip
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import urllib3
from measure import processor, timed

from aitp_tasks.records.run import Run

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKET = "bench-plan"
_WRITERS = 16
_NEW_SHARE = 0.01

Put = Callable[[str, bytes], object]


def main() -> None:
    """Plan in both storages and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=100_000, help="in the folder")
    parser.add_argument("--s3-shards", type=int, default=100_000, help="in SeaweedFS; none with 0")
    parser.add_argument("--ending", choices=CONTENTS, default=".parquet", help="what the shards are")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        local, run = plans(
            f"file://{folder}",
            arguments.shards,
            arguments.ending,
            lambda key, data: to_file(folder, key, data),
        )
        start = time.monotonic()
        Run.open(run)
        local["seconds_open"] = round(time.monotonic() - start, 2)
    if not arguments.s3_shards:
        print(json.dumps(local | {"processor": processor()}))
        return
    with (
        tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder,
        store(Path(folder)) as (put, environment),
    ):
        remote, _ = plans(f"s3://{BUCKET}", arguments.s3_shards, arguments.ending, put, environment)
    figures = local | {f"s3_{name}": value for name, value in remote.items()}
    print(json.dumps(figures | {"processor": processor()}))


def plans(
    root: str, shards: int, ending: str, put: Put, environment: dict[str, str] | None = None
) -> tuple[dict[str, Any], str]:
    """Figures of the three plans over ``shards`` shards, and the last one's run."""
    put("sft/one/one-000000.parquet", parquet({"instruction": "Add one and one.", "output": "Two."}))
    upload(put, ending, range(shards))
    figures: dict[str, Any] = {"shards": shards}
    command = ["plan", "--config", str(REPOSITORY / "configs/demo.yaml")]
    for setting in (f"root={root}", "dump=many", "sft=one", "plan.group_bytes=1000"):
        command += ["--set", setting]
    peaks = []
    for name in ("first", "second", "one_percent_new"):
        if name == "one_percent_new":
            upload(put, ending, range(shards, shards + int(shards * _NEW_SHARE)))
        result, seconds, peak = timed(command, environment)
        figures[f"seconds_{name}"] = round(seconds, 1)
        peaks.append(peak)
        print(
            f"{root} {name}: seconds={seconds:.1f} peak_mb={peak:.0f} units={result['embed_units']}",
            flush=True,
        )
    return figures | {"peak_mb": max(peaks)}, result["run"]


def upload(put: Put, ending: str, numbers: range) -> None:
    """Write these shards of the dump."""
    data = CONTENTS[ending]({"text": "A document of rivers, ports and grain.", "url": "https://example.org/"})
    with ThreadPoolExecutor(_WRITERS) as writers:
        for start in range(0, len(numbers), 1000):
            keys = [f"corpus/many/many-{number:06d}{ending}" for number in numbers[start : start + 1000]]
            list(writers.map(put, keys, [data] * len(keys)))


def parquet(row: dict[str, str]) -> bytes:
    """A shard of 20 equal rows."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row] * 20), sink, compression="zstd")
    return sink.getvalue()


def lines(row: dict[str, str]) -> bytes:
    """The same as JSON Lines."""
    return (json.dumps(row) + "\n").encode() * 20


CONTENTS = {".parquet": parquet, ".jsonl": lines, ".jsonl.gz": lambda row: gzip.compress(lines(row))}


def to_file(folder: str, key: str, data: bytes) -> None:
    """Write one shard into the folder."""
    path = Path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextmanager
def store(folder: Path) -> Iterator[tuple[Put, dict[str, str]]]:
    """A running SeaweedFS: how to put a shard into it, and the variables by which ``aitp`` reaches it."""
    sys.path.insert(0, str(REPOSITORY))
    from demo.services import Services

    services = Services(folder)
    services.start_store()
    try:
        client = services.bucket_client()
        client.create_bucket(Bucket=BUCKET)
        pool = urllib3.PoolManager(maxsize=_WRITERS)

        def put(key: str, data: bytes) -> None:
            # Through boto3 the upload would take several times as long as what is measured.
            url = client.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": key})
            answer = pool.request("PUT", url, body=data)
            if answer.status != 200:
                sys.exit(f"{key} was refused: {answer.status} {answer.data[:300]!r}")

        yield put, services.storage_environment()
    finally:
        services.stop()


if __name__ == "__main__":
    main()
