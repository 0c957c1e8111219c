"""A small corpus and SFT set in a folder, and a configuration over them; real models from the setup."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings

from aitp_tasks.config import RunConfig
from aitp_tasks.selection import gain

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / ".aitp" / "models"

# How long an example takes says something about the machine, not about the code.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")

Configure = Callable[..., RunConfig]
#: Of the intervals that each assemble tells; tests/aitp_tasks/selection/test_gain.py has all of them.
gain._RESAMPLES = gain._FEWEST = 20
#: What tests prepare once (the encoder) stays inside the checkout.
os.environ["AITP_CACHE"] = str(REPOSITORY / ".aitp" / "cache")


def write_shard(path: Path, table: pa.Table | list[dict[str, Any]]) -> None:
    """Write one Parquet shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pylist(table), path)


def alpaca(count: int) -> list[dict[str, Any]]:
    """Examples in Alpaca's form."""
    return [
        {"instruction": f"Add {number} and one.", "input": "", "output": f"The sum is {number + 1}."}
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as `make setup` leaves it, or where AITP_TEST_MODEL says."""
    folder = Path(os.environ.get("AITP_TEST_MODEL", MODELS / "SmolLM2-135M-Instruct")).resolve()
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no model in {folder}: run `make setup`, or set AITP_TEST_MODEL")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A storage root with one dump of two shards and one SFT set."""
    root = tmp_path / "storage"
    for shard in range(2):
        texts = [f"Document {shard}-{row} tells of rivers, ports and grain." for row in range(6)]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", [{"text": text} for text in texts])
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(8))
    return root


@pytest.fixture
def configure(root: Path) -> Configure:
    """Makes configurations over ``root``; keyword arguments replace whole sections or values."""

    def make(**changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "root": f"file://{root}",
            "dump": "news",
            "sft": "sums",
            "encoder": {"model": str(MODELS / "all-MiniLM-L6-v2"), "max_tokens": 128},
            "engine": {"model": str(MODELS / "SmolLM2-135M-Instruct"), "max_model_len": 1024},
            "prompts": {"folder": str(REPOSITORY / "prompts"), "sampling": {"max_tokens": 256}},
            # A tenth of so few examples would be no pair at all, so that no document were drawn.
            "assemble": {"max_rewritten_share": 1.0},
            "finetune": {"model": str(MODELS / "SmolLM2-135M-Instruct")},
        }
        return RunConfig.model_validate(values | changes)

    return make


def pytest_make_parametrize_id(val: object) -> str | None:
    """A name for bytes that nobody can read: archives hold the time, and names have to be the same."""
    return "bytes" if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None
