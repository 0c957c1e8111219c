"""The compose files: their form by two other programs, and the rules that each service keeps."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.providers_manager import ProvidersManager
from airflow.sdk.configuration import conf
from compose_spec import PyCompose

from aitp_tasks.config import RunConfig
from demo.services import REPOSITORY
from tests.docker.values import VALUES
from tests.e2e import compose

FILES = {"base": (compose.BASE,), "gpu": (compose.BASE, compose.GPU)}
JOINED = {name: compose.interpolated(compose.read(*files), VALUES) for name, files in FILES.items()}
SERVICES = [(name, service) for name in FILES for service in JOINED[name]["services"]]
#: Names of variables that hold what nobody else may know.
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own loader takes the last."""


def _mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: a key stands twice in {keys}"
    loader.flatten_mapping(node)
    return {loader.construct_object(key, True): loader.construct_object(one, True) for key, one in node.value}


Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


@pytest.mark.parametrize("path", FILES["gpu"], ids=lambda path: path.name)
def test_no_key_stands_twice(path: Path) -> None:
    assert yaml.load(path.read_text(), Strict) == yaml.safe_load(path.read_text())
    with pytest.raises(AssertionError, match="line 1"):
        yaml.load("{a: 1, b: 2, a: 3}", Strict)


@pytest.mark.parametrize("name", FILES)
def test_another_program_reads_the_same_services(name: str) -> None:
    read = PyCompose.from_yaml(yaml.safe_dump(JOINED[name]))
    assert set(read.service_names()) == set(JOINED[name]["services"])
    broken = {"services": {"a": {"image": "b:1", "port": ["1:1"]}}}
    with pytest.raises(ValueError, match="port"):
        PyCompose.from_yaml(yaml.safe_dump(broken))


def test_a_linter_finds_nothing_grave() -> None:
    linter = Path(sys.executable).with_name("compose-lint")
    done = subprocess.run([linter, *FILES["gpu"]], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_a_service_keeps_the_rules(name: str, service: str) -> None:
    said = JOINED[name]["services"][service]
    image, _, tag = said["image"].rpartition(":")
    assert image
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?", tag), "a version, and no name that moves on"
    user = str(said["user"]).partition(":")[0]
    assert user not in ("root", "0", "")
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert not said.get("privileged")
    assert not [key for key in ("network_mode", "pid", "ipc", "cap_add", "devices") if key in said]
    assert all(port.startswith("127.0.0.1:") for port in said.get("ports", ()))
    # Nothing of the machine but two folders of the checkout, to be read.
    bound = [volume for volume in said.get("volumes", ()) if volume.startswith((".", "/"))]
    assert set(bound) <= {"./configs:/opt/aitp/configs:ro", "./docker:/opt/aitp/docker:ro"}
    if service != "init":
        assert {"test", "interval", "timeout", "retries"} <= said["healthcheck"].keys()
        assert said["restart"] == "unless-stopped"


@pytest.mark.parametrize("path", FILES["gpu"], ids=lambda path: path.name)
def test_no_secret_stands_in_a_file_or_has_a_default(path: Path) -> None:
    text = path.read_text()
    for variable, kind in re.findall(r"\$\{(\w+)(:?[-?])", text):
        assert SECRET.search(variable) is None or kind == ":?", variable
        assert variable in VALUES or kind == ":-", f"make compose-env does not write {variable}"
    given = {
        (key, value)
        for service in yaml.safe_load(text)["services"].values()
        for key, value in service.get("environment", {}).items()
        if SECRET.search(key) and not key.endswith(("_FILE", "__ENABLED"))
    }
    assert [key for key, value in given if "${AITP_" not in value] == []


def test_the_page_has_each_variable_with_its_default() -> None:
    text = "".join(path.read_text() for path in FILES["gpu"])
    page = (REPOSITORY / "docs/how-to/compose.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `AITP_")]
    shown = {name: default for names, default in rows for name in re.findall(r"AITP_\w+", names)}
    said = re.findall(r"\$\{(\w+):-([^}]*)\}", text)
    assert {name for name, _ in said} == shown.keys()
    assert [name for name, default in said if default not in shown[name]] == []


def test_the_page_s_configurations_go_to_the_workers_that_are_there(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/how-to/compose.md").read_text()
    shown = [textwrap.dedent(fence) for fence in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    read = []
    for text in shown:
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace("extends: ./", f"extends: {REPOSITORY}/configs/"))
        read.append(RunConfig.load(path))
    with_gpus, without = read
    command = JOINED["gpu"]["services"]["worker-gpu"]["command"]
    queue = command[command.index("--queues") + 1]
    workers = with_gpus.workers
    assert {place.queue for place in (workers.encoder, workers.engine, workers.finetune)} == {queue}
    assert with_gpus.devices.require == "gpu"
    assert without.devices.require != "gpu"
    # No container has a folder with models.
    for config in read:
        models = (config.encoder, config.engine, config.finetune)
        assert all(re.fullmatch(r"[\w-]+/[\w.-]+", model.model) and model.revision for model in models)


def test_nothing_starts_where_a_secret_is_missing() -> None:
    for name in VALUES:
        left = {key: value for key, value in VALUES.items() if key != name}
        with pytest.raises(KeyError, match=f"{name} is not set: run make compose-env"):
            compose.interpolated(compose.read(*FILES["gpu"]), left)
        with pytest.raises(KeyError):
            compose.interpolated(compose.read(*FILES["gpu"]), {**left, name: ""})


def test_a_service_waits_for_what_it_needs() -> None:
    services = JOINED["gpu"]["services"]
    for name, said in services.items():
        for other, how in said.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other == "init" else "service_healthy"
            assert how["condition"] == expected, (name, other)
    assert services["init"]["depends_on"].keys() == {"postgres", "store"}
    airflow = {name for name, said in services.items() if "/opt/aitp/" in str(said["volumes"])} - {"init"}
    assert all("init" in services[name]["depends_on"] for name in airflow)
    assert {name for name in airflow if "redis" in services[name]["depends_on"]} == {
        "scheduler", "worker", "worker-gpu",
    }  # fmt: skip


def test_all_of_airflow_say_the_same() -> None:
    services = JOINED["gpu"]["services"]
    known: dict[str, str] = {}
    for name in ("scheduler", "init", "api-server", "dag-processor", "triggerer", "worker", "worker-gpu"):
        for key, value in services[name]["environment"].items():
            assert known.setdefault(key, value) == value, (name, key)
    assert known["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


def test_a_task_is_not_delivered_twice_while_it_may_still_run() -> None:
    (path,) = (REPOSITORY / "dags").glob("aitp_refresh.py")
    dag = DagBag(str(path)).dags["aitp_refresh"]
    longest = max(task.execution_timeout for task in dag.tasks)
    said = JOINED["gpu"]["services"]["worker-gpu"]["environment"]
    seconds = int(said["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"])
    assert timedelta(seconds=seconds) > longest >= timedelta(hours=48)


def test_a_task_may_wait_in_a_queue_as_long_as_those_before_it_take() -> None:
    """What waits for slots of the pool gpu is in no queue yet; all else shares the default workers."""
    dags = DagBag(str(REPOSITORY / "dags")).dags.values()
    # Where nothing is held out, evaluate takes no slot and ends at once.
    tasks = [task for dag in dags for task in dag.tasks if task.pool != "gpu" and task.task_id != "evaluate"]
    longest = max(task.execution_timeout for task in tasks)
    scheduler = JOINED["gpu"]["services"]["scheduler"]["environment"]
    assert timedelta(seconds=int(scheduler["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"])) >= longest


@pytest.mark.parametrize("name", FILES)
def test_airflow_knows_each_of_its_variables(name: str) -> None:
    ProvidersManager().initialize_providers_configuration()
    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, described in conf.configuration_description.items()
        for option in described["options"]
    }
    said = {key for service in JOINED[name]["services"].values() for key in service["environment"]}
    assert {key for key in said if key.startswith("AIRFLOW__")} - known == set()


def test_the_worker_with_gpus_has_them_and_the_memory_that_engines_share() -> None:
    said = JOINED["gpu"]["services"]["worker-gpu"]
    (device,) = said["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert said["build"]["args"] == {"WORKER": "gpu"}
    assert said["shm_size"] == "16gb"
    assert said["ulimits"]["memlock"] == -1
    # Only it: no other container sees a GPU.
    others = [name for name, one in JOINED["gpu"]["services"].items() if "deploy" in one]
    assert others == ["worker-gpu"]
