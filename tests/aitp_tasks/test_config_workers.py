"""Which workers a configuration names, and that they decide no result."""

from typing import Any

import pytest
from pydantic import ValidationError

from aitp_tasks.config import Workers
from tests.aitp_tasks.conftest import Configure


def test_nothing_is_placed_by_default() -> None:
    for name in ("encoder", "engine", "finetune"):
        place = getattr(Workers(), name)
        assert (place.queue, place.pod_template) == (None, None)


@pytest.mark.parametrize(
    "workers",
    [
        {"encoder": {"queue": "gpu"}},
        {"engine": {"queue": "gpu"}, "finetune": {"pod_template": "/etc/pod.yaml"}},
    ],
)
def test_where_a_stage_runs_decides_no_result(configure: Configure, workers: dict[str, Any]) -> None:
    assert configure(workers=workers).identity() == configure().identity()


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"encoder": {"queue": ""}}, "encoder.queue"),
        # Celery takes a comma for two queues.
        ({"engine": {"queue": "gpu,default"}}, "engine.queue"),
        ({"engine": {"queue": 5}}, "engine.queue"),
        ({"finetune": {"pod_template": ""}}, "finetune.pod_template"),
        ({"embed": {"queue": "gpu"}}, "embed"),
        ({"encoder": {"slots": 2}}, "encoder.slots"),
    ],
)
def test_what_names_no_workers_is_refused(workers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Workers.model_validate(workers)
