"""Pod templates: the project's own, and those that are none."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.errors import InputError
from aitp_tasks.machine import pods

REPOSITORY = Path(__file__).resolve().parents[3]
SETTING = "workers.engine.pod_template"
LIMITS = {"nvidia.com/gpu": 2, "memory": "9Gi"}


def pod(limits: Any = LIMITS, name: str = "base", **changes: Any) -> dict[str, Any]:
    container = {"name": name, "resources": {"limits": limits}}
    return {"kind": "Pod", "spec": {"containers": [container, {"name": "sidecar"}]}, **changes}


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_projects_own_ask_for_what_they_are_called(count: int) -> None:
    template = str(REPOSITORY / f"docker/kubernetes/pods/gpu-{count}.yaml")
    pods.require(template, SETTING, count)
    with pytest.raises(
        InputError, match=f"asks for {count} GPUs .* leases {count + 1}: let both be the same"
    ):
        pods.require(template, SETTING, count + 1)


@pytest.mark.parametrize(
    ("content", "gpus", "message"),
    [
        (pod(), 2, None),
        (pod(), None, None),
        (pod({"nvidia.com/gpu": "2"}), 2, None),
        # A slice counts as a GPU.
        (pod({"nvidia.com/mig-1g.10gb": 1}), 1, None),
        (pod({"memory": "9Gi"}), 0, None),
        (pod({"memory": "9Gi"}), None, None),
        (pod({"memory": "9Gi"}), 1, "asks for no GPUs .*, and a task of its stages leases 1"),
        (pod(), 0, "asks for 2 GPUs .* leases 0"),
        # CUDA shows one slice to a process, whatever else it was given.
        (pod({"nvidia.com/mig-1g.10gb": 1, "nvidia.com/gpu": 1}), 2, "asks for 1 and 1 GPUs"),
        (pod({"nvidia.com/gpu": "two"}), 2, "asks for two GPUs"),
        (pod([2]), 2, "asks for no GPUs"),
        (pod(name="worker"), 2, "is no pod whose first container is called base"),
        (pod(kind="Deployment"), 2, "is no pod"),
        (pod(spec=None), 2, "is no pod"),
        (pod(spec={"containers": []}), 2, "is no pod"),
        (pod(spec={"containers": {"name": "base"}}), 2, "is no pod"),
        (pod(spec={"containers": ["base"]}), 2, "is no pod"),
        ([], 2, "is no pod"),
        (None, 2, "is no pod"),
    ],
)
def test_a_template_that_cannot_be_a_stages_pod_is_refused(
    tmp_path: Path, content: Any, gpus: int | None, message: str | None
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(content))
    if message is None:
        pods.require(str(path), SETTING, gpus)
        return
    with pytest.raises(InputError, match=f"{SETTING}={path} .*{message}"):
        pods.require(str(path), SETTING, gpus)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(InputError, match="broken.yaml is not YAML"):
        pods.require(str(broken), SETTING, 1)
    broken.write_bytes(b"\xff")
    with pytest.raises(InputError, match="broken.yaml is not YAML"):
        pods.require(str(broken), SETTING, 1)
    with pytest.raises(InputError, match=r"gone.yaml cannot be read \(No such file"):
        pods.require(str(tmp_path / "gone.yaml"), SETTING, 1)
