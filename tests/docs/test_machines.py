"""What is shown of several machines is what the program reads."""

from pathlib import Path
from typing import Any

import yaml

from aitp_tasks.config import Finetune
from aitp_tasks.errors import ExitCode
from aitp_tasks.training import nodes
from aitp_tasks.training.nodes import Node
from tests.docs.console import REPOSITORY, fences

PAGE = REPOSITORY / "docs" / "how-to" / "machines.md"


def _shown(language: str) -> str:
    (found,) = ("\n".join(fence.lines) for fence in fences(PAGE) if fence.language == language)
    return found


def test_each_pod_of_the_indexed_job_is_a_machine() -> None:
    service, job = yaml.safe_load_all(_shown("yaml"))
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    spec: dict[str, Any] = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    count = int(variables["NNODES"])
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == count
    # Names of an Indexed Job's pods are its own and their number, in the domain of the service.
    name = job["metadata"]["name"]
    assert variables["MASTER_ADDR"] == f"{name}-0.{service['metadata']['name']}"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert container["args"][:2] == ["finetune", "--run"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [ExitCode.BAD_INPUT, ExitCode.BUDGET_EXCEEDED]
    settings = Finetune(model="/none", nodes=count)
    found = [
        nodes.here(settings, {**variables, "JOB_COMPLETION_INDEX": str(index)}) for index in range(count)
    ]
    assert found == [
        Node(rank=index, count=count, address=variables["MASTER_ADDR"], port=29500) for index in range(count)
    ]


def test_the_hostfile_is_one(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text(_shown("text"))
    settings = Finetune(model="/none", nodes=2, processes=8, hostfile=str(path))
    found = nodes.here(settings, {}, ["gpu-b.example"])
    assert found == Node(rank=1, count=2, address="gpu-a", port=29500)


def test_the_table_has_all_variables() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    told = {name for row in rows for name in row.split("`")[1::2] if name.isupper()}
    assert told == {*nodes._RANK, *nodes._ADDRESS, *nodes._PORT, *nodes._COUNT}
