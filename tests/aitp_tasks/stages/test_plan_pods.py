"""A pod template that does not ask for the GPUs of its stages is refused before anything is paid for."""

from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.stages import plan
from tests.aitp_tasks.conftest import REPOSITORY, Configure

PODS = REPOSITORY / "docker/kubernetes/pods"
GPU_1, GPU_2 = "gpu-1.yaml", "gpu-2.yaml"
SERVER = {"endpoint": {"url": "http://127.0.0.1:1", "served_model": "m"}}


@pytest.mark.parametrize(
    ("name", "template", "changes", "message"),
    [
        ("encoder", GPU_1, {}, None),
        ("encoder", GPU_2, {}, "leases 1"),
        ("engine", GPU_2, {"engine_args": {"tensor_parallel_size": 2}}, None),
        ("engine", GPU_1, {"engine_args": {"pipeline_parallel_size": 2}}, "leases 2"),
        ("engine", GPU_1, SERVER, "leases 0"),
        ("engine", GPU_1, {**SERVER, "answers": 2}, None),
        ("encoder", GPU_1, SERVER, "leases 0"),
        ("finetune", GPU_2, {"processes": 2}, None),
        ("finetune", GPU_1, {"processes": 2}, "leases 2"),
        ("finetune", "/none/pod.yaml", {}, "cannot be read"),
    ],
)
def test_a_pod_asks_for_the_gpus_that_its_task_leases(
    configure: Configure, name: str, template: str, changes: dict[str, Any], message: str | None
) -> None:
    settings = dict(changes)
    prompts = {"folder": str(REPOSITORY / "prompts"), "answers_per_question": settings.pop("answers", 1)}
    section = configure().model_dump(exclude_defaults=True)[name] | settings
    path = str(PODS / template)
    asked = {name: section, "prompts": prompts, "workers": {name: {"pod_template": path}}}
    config = configure(**asked, devices={"require": "gpu"})
    if message is None:
        plan._require_pods(config)
    else:
        with pytest.raises(InputError, match=rf"workers\.{name}\.pod_template={path} .*{message}"):
            plan._require_pods(config)
        if "leases" in message:
            # Whether there is a GPU is seen only when a stage runs.
            plan._require_pods(configure(**asked))


def test_plan_refuses_it(configure: Configure) -> None:
    workers = {"encoder": {"pod_template": str(PODS / GPU_2)}}
    with pytest.raises(InputError, match="workers.encoder.pod_template"):
        plan.execute(configure(workers=workers, devices={"require": "gpu"}))
