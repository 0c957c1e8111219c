"""One object store for all of these tests, really started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.services import Services


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """SeaweedFS alone."""
    services = Services(tmp_path_factory.mktemp("store"))
    services.start_store()
    yield services
    services.stop()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[2]
