"""What is handed to Kubernetes: by its own schemas, as the executor makes pods of it, and by the rules.

The chart's values are checked here as far as they are the project's own; that the chart takes
them, and what it makes of them, was seen with Helm (docs/decisions/2026-11-27-kubernetes.md).
"""

from __future__ import annotations

import copy
import re
import runpy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers_manager import ProvidersManager
from airflow.sdk.configuration import conf
from kubernetes.client import ApiClient

from demo.services import POOLS, REPOSITORY

FOLDER = REPOSITORY / "docker/kubernetes"
VERSION = "1.37"
PODS = sorted((FOLDER / "pods").glob("*.yaml"))
OBJECTS = [
    pytest.param(one, id=f"{path.stem}-{one['kind']}-{one['metadata']['name']}")
    for path in sorted(FOLDER.rglob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
    if "kind" in one
]
EACH_POD = pytest.mark.parametrize("path", PODS, ids=lambda path: path.stem)
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())


def pod(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def gpus(container: dict[str, Any]) -> int:
    return int(container["resources"]["limits"]["nvidia.com/gpu"])


@pytest.mark.parametrize("one", OBJECTS)
def test_kubernetes_knows_every_key(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, VERSION, strict=True)
    broken = copy.deepcopy(one)
    broken["spec"]["nodeSelectr"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@EACH_POD
def test_a_pod_is_harmless_and_has_what_an_engine_needs(path: Path) -> None:
    spec = pod(path)["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 50000)
    assert not [key for key in ("hostNetwork", "hostPID", "hostIPC") if key in spec]
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounts.values()) == volumes.keys()
    memory = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert memory["medium"] == "Memory"
    # It counts as the pod's memory.
    assert _gib(memory["sizeLimit"]) < _gib(container["resources"]["limits"]["memory"])
    (claim,) = (one.values[0] for one in OBJECTS if one.values[0]["kind"] == "PersistentVolumeClaim")
    assert volumes[mounts["/cache"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    # What it keeps is in the volume, and what is secret comes by name.
    for variable in container["env"]:
        place = variable.get("value", "")
        assert "value" not in variable or place.startswith(("/cache/", "/opt/aitp/configs/"))
        assert "value" in variable or "secretKeyRef" in variable["valueFrom"]


def _gib(size: str) -> int:
    return int(size.removesuffix("Gi"))


def test_the_pods_differ_in_numbers_only() -> None:
    plain = {re.sub(r"one GPU|\d+ GPUs|\d+", "#", path.read_text()) for path in PODS}
    assert len(plain) == 1
    assert [gpus(pod(path)["spec"]["containers"][0]) for path in PODS] == [
        int(path.stem.removeprefix("gpu-")) for path in PODS
    ]


@pytest.mark.parametrize("preset", ["gpu-1x80", "gpu-8x80"])
def test_the_executor_makes_a_pod_with_as_many_gpus_as_slots(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"extends: {REPOSITORY}/configs/kubernetes-{preset}.yaml\nroot: s3://b\n")
    monkeypatch.setenv("AITP_CONFIG", str(config))
    dag_file = runpy.run_path(str(REPOSITORY / "dags/aitp_refresh.py"), run_name="dag")
    taken = {name: one for name, one in dag_file["RESOURCES"].items() if one.pool in POOLS}
    # Nothing is held out in the presets, so that evaluate takes no GPU.
    assert taken.keys() == {"embed", "rewrite", "score", "answer", "assemble", "finetune"}
    for name, one in taken.items():
        made = made_pod(name, one.executor_config)
        kubernetes_validate.validate(made, VERSION, strict=True)
        (container,) = made["spec"]["containers"]
        assert container["args"] == ["run", name]
        assert container["image"].startswith("aitp-worker:")
        assert gpus(container) == one.slots
        assert made["spec"]["volumes"]


def made_pod(task: str, executor_config: dict[str, str]) -> dict[str, Any]:
    """The pod of a task, as the executor makes it where no image is configured for all."""
    template = executor_config["pod_template_file"]
    made = PodGenerator.construct_pod(
        dag_id="aitp_refresh",
        task_id=task,
        pod_id=f"aitp-refresh-{task}",
        try_number=1,
        kube_image=None,  # type: ignore[arg-type]
        date=None,
        args=["run", task],
        pod_override_object=PodGenerator.from_obj(executor_config),
        base_worker_pod=PodGenerator.deserialize_model_file(template),
        namespace="airflow",
        scheduler_job_id="1",
    )
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(made)
    return found


def test_a_worker_that_serves_nobody_is_every_worker() -> None:
    policies = {one.values[0]["metadata"]["name"]: one.values[0] for one in OBJECTS}
    spec = policies["aitp-workers-serve-nobody"]["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress"], [])
    for path in PODS:
        assert spec["podSelector"]["matchLabels"].items() <= pod(path)["metadata"]["labels"].items()


def test_the_values_name_the_images_of_this_version_and_nothing_secret() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    (airflow,) = re.findall(r"apache-airflow\[.*\]==([\d.]+)", (REPOSITORY / "pyproject.toml").read_text())
    assert VALUES["airflowVersion"] == airflow
    assert VALUES["images"] == {
        "airflow": {"repository": "aitp-airflow", "tag": version},
        "pod_template": {"repository": "aitp-worker", "tag": version},
    }
    assert {pod(path)["spec"]["containers"][0]["image"] for path in PODS} == {f"aitp-worker:{version}-gpu"}
    assert not VALUES["postgresql"]["enabled"], "the chart's own database has a default password"
    for name in ("fernetKey", "apiSecretKey", "jwtSecret"):
        assert name not in VALUES
    assert [one["secretName"] for one in VALUES["secret"]] == ["aitp-s3"]


def test_a_pod_may_wait_for_a_node_as_long_as_a_task_in_a_queue() -> None:
    gpu = yaml.safe_load((REPOSITORY / "docker-compose.gpu.yaml").read_text())["x-celery"]
    queued = gpu["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"]
    assert VALUES["config"]["scheduler"] == {"task_queued_timeout": int(queued)}


def test_airflow_knows_each_setting_of_the_values() -> None:
    ProvidersManager().initialize_providers_configuration()
    described = conf.configuration_description
    known = {(section, option) for section in described for option in described[section]["options"]}
    assert ("core", "dags_folder") in known
    said = {(section, option) for section, options in VALUES["config"].items() for option in options}
    assert said - known == set()
