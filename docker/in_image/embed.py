"""Plans a run over a small shard and embeds a unit of it, by the image's own ``aitp``.

The vectors are those of sentence-transformers itself.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

DATA = Path("/data")
ROWS = 12
ENCODER = "/models/all-MiniLM-L6-v2"


def aitp(*arguments: str) -> dict[str, object]:
    """The result of one command.

    Raises:
        subprocess.CalledProcessError: it failed; its messages have been shown.
    """
    done = subprocess.run(["aitp", *arguments], stdout=subprocess.PIPE, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main() -> None:
    """Make the input, run, and look at the vectors."""
    texts = [f"Document {row} tells of rivers, ports and grain." for row in range(ROWS)]
    write(DATA / "storage/corpus/news/news-00000.parquet", [{"text": text} for text in texts])
    examples = [
        {"instruction": f"Add {number} and one.", "input": "", "output": f"{number + 1}."}
        for number in range(8)
    ]
    write(DATA / "storage/sft/sums/sums-00000.parquet", examples)
    model = "/models/SmolLM2-135M-Instruct"
    configuration = {
        "root": f"file://{DATA}/storage",
        "dump": "news",
        "sft": "sums",
        "encoder": {"model": ENCODER, "max_tokens": 128},
        "engine": {"model": model, "max_model_len": 1024},
        "prompts": {"folder": "/opt/aitp/prompts", "sampling": {"max_tokens": 256}},
        "assemble": {"max_rewritten_share": 1.0},
        "finetune": {"model": model},
    }
    # JSON is YAML.
    (DATA / "run.yaml").write_text(json.dumps(configuration))
    run = str(aitp("plan", "--config", str(DATA / "run.yaml"))["run"])
    result = aitp("embed", "--run", run, "--unit", "0")
    found = vectors()
    expected = SentenceTransformer(ENCODER, device="cpu").encode(texts, normalize_embeddings=True)
    cosine = float((found * expected).sum(axis=1).min() / np.linalg.norm(found, axis=1).max())
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert cosine > 0.99, cosine
    print(f"embedded rows={len(found)} smallest_cosine={cosine:.4f} result={json.dumps(result)}")


def vectors() -> np.ndarray:
    """The vectors of the one shard that the unit holds, in the order of its rows."""
    chunks = [pq.read_table(path) for path in DATA.glob("storage/embeddings/*/*/rows-*.parquet")]
    table = pa.concat_tables(chunks).sort_by("row")
    return np.stack([np.asarray(one, dtype=np.float32) for one in table["vector"].to_pylist()])


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


if __name__ == "__main__":
    main()
