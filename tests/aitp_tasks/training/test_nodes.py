"""Which machine this is, by cases written from the outside; what of a launcher's variables ranks see."""

import socket
from pathlib import Path

import pytest

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.training import nodes
from tests.aitp_tasks.training.nodes_cases import CASES, Case, Placed, Refused


def _settings(tmp_path: Path, hostfile: str | None, machines: int = 2, processes: int = 8) -> Finetune:
    path = tmp_path / "hostfile"
    if hostfile is not None:
        path.write_bytes(hostfile.encode())
    return Finetune(
        model="/none",
        nodes=machines,
        processes=processes,
        hostfile=None if hostfile is None else str(path),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases(case: Case, tmp_path: Path) -> None:
    settings = _settings(tmp_path, case.hostfile, case.nodes, case.processes)
    if isinstance(case.expected, Refused):
        with pytest.raises(InputError) as refused:
            nodes.here(settings, case.environment, [case.hostname])
        message = str(refused.value).replace(str(tmp_path), "")
        assert [name for name in case.expected.names if name not in message] == []
        return
    found = nodes.here(settings, case.environment, [case.hostname])
    if isinstance(case.expected, Placed):
        assert found is not None
        found = Placed(found.rank, found.count, found.address, found.port)
    assert found == case.expected


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"NNODES": "2"},
            r"NNODES=2, but finetune.nodes=1: .* unset NNODES.* or set finetune.nodes=2 and plan",
        ),
        ({"PET_NNODES": "1:4"}, r"PET_NNODES=1:4 is no number of machines .*: set it to finetune.nodes=1"),
    ],
    ids=["more machines", "elastic"],
)
def test_a_run_of_one_machine_is_not_started_on_several(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        nodes.here(_settings(tmp_path, None, 1), {"MASTER_ADDR": "gpu-a", "NODE_RANK": "1", **variables})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("gpu-a slots=8 max=9\ngpu-b", r"line 1: 'gpu-a slots=8 max=9' is not of the form 'HOST slots=N'"),
        ("gpu-a\ngpu-b slots=-8", r"line 2: 'gpu-b slots=-8' is not of the form"),
        ("gpu-a\0\ngpu-b", "is no hostfile: name one"),
        ("#" * 1_000_001, "is no hostfile: name one"),
        ("gpu-a\n\n\ngpu-a", "line 4: gpu-a is there twice: take one out"),
    ],
    ids=["more than slots", "negative slots", "binary", "huge", "twice"],
)
def test_a_hostfile_that_is_none_is_refused(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        nodes.here(_settings(tmp_path, content), {}, ["gpu-b"])


def test_a_missing_hostfile_is_refused(tmp_path: Path) -> None:
    settings = Finetune(model="/none", nodes=2, hostfile=str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"finetune.hostfile=.*none cannot be read \(No such file"):
        nodes.here(settings, {})
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        nodes.here(settings.model_copy(update={"hostfile": str(tmp_path)}), {})


def test_this_machine_knows_its_own_names_and_addresses(tmp_path: Path) -> None:
    found = nodes.here(_settings(tmp_path, f"192.0.2.1\n{socket.gethostname()}"), {})
    assert found is not None
    assert (found.rank, found.first, found.address) == (1, False, "192.0.2.1")
    assert nodes.here(_settings(tmp_path, "127.0.0.1", 1), {}) is None


def test_ranks_see_nothing_of_other_launchers() -> None:
    own = {"PATH": "/bin", "HOME": "/", "NCCL_DEBUG": "INFO", "MASTER": "kept", "RANKING": "kept"}
    others = {variable: "1" for case in CASES for variable in case.environment if "SLURM" not in variable}
    others = {
        name: value
        for name, value in others.items()
        if name not in ("PYTHONUNBUFFERED", "MASTER_SERVICE_HOST")
    }
    others |= {
        "LOCAL_SIZE": "4",
        "CROSS_RANK": "1",
        "OMPI_COMM_WORLD_RANK": "3",
        "ACCELERATE_USE_FSDP": "true",
    }
    assert len(others) > 20
    assert nodes.without({**own, **others}) == own


def test_the_interface_is_that_by_which_an_address_is_reached() -> None:
    assert nodes.interface("127.0.0.1") == "lo"
    assert nodes.interface("localhost") == "lo"
    assert nodes.interface("no.such.host.invalid") is None
