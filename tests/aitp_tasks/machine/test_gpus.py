"""Which GPUs a process may use: as CUDA and schedulers name them, and as the management library tells."""

import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.machine import gpus
from aitp_tasks.machine.gpus import Gpu
from tests.aitp_tasks.machine.nvml import CUT, EIGHT, Nvml, Partly


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [*range(8)]),
        ("", []),
        ("2", [2]),
        ("3, 1", [3, 1]),
        ("-1", []),
        ("1,-1,2", [1]),
        ("1,99,2", [1]),
        ("1,1", []),
        ("NoDevFiles", []),
        ("GPU-4000-uuid,GPU-2000-uuid", [4, 2]),
        ("GPU-5", [5]),
        ("GPU-", []),
        ("GPU-1,GPU-9,GPU-2", [1]),
    ],
)
def test_visible_devices_are_read_as_cuda_does(value: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in gpus._left(EIGHT, value)] == indices


SLICES = list(range(1, 12))


@pytest.mark.parametrize(
    ("value", "places"),
    [
        pytest.param(None, [*range(13)], id="not set"),
        pytest.param("", [], id="empty is none"),
        pytest.param(" ", [], id="blank is none"),
        pytest.param(",0", [], id="nothing comes first"),
        pytest.param("0,,2", [0], id="nothing in between"),
        pytest.param("0,", [0], id="nothing at the end"),
        pytest.param(" 2 , 0 ", [12, 0], id="spaces, another order"),
        pytest.param("0,2,-1,1", [0, 12], id="none after -1, as CUDA's guide has it"),
        pytest.param("-1", [], id="-1 alone"),
        pytest.param("3", [], id="beyond the last"),
        pytest.param("0,3,2", [0], id="none after one beyond the last"),
        pytest.param("99999999999999999999", [], id="a number without sense"),
        pytest.param("0,0", [], id="twice is none at all"),
        pytest.param("0,-1,0", [0], id="twice, but the second is not read"),
        pytest.param("2gpu", [12], id="what follows a number"),
        pytest.param("+2,00", [12, 0], id="as C reads numbers"),
        pytest.param("all", [], id="no name of one"),
        pytest.param("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", [0], id="UUID"),
        pytest.param("GPU-893", [0], id="beginning of a UUID"),
        pytest.param("GPU-89", [], id="beginning of two"),
        pytest.param("GPU-5d5b,GPU-893", [12, 0], id="UUIDs in another order"),
        pytest.param("GPU-5d5b,GPU-5d", [], id="the same by two names"),
        pytest.param("GPU-5d5b,GPU-ffff,GPU-893", [12], id="none after an unknown UUID"),
        pytest.param("gpu-5d5b", [], id="UUIDs begin with GPU-"),
        pytest.param("5d5b", [], id="UUID without its beginning is the number 5"),
        pytest.param("0,GPU-5d5b", [0], id="numbers and UUIDs do not mix"),
        pytest.param("GPU-5d5b,0", [12], id="nor the other way round"),
        pytest.param("MIG-30e5a", [4], id="a slice"),
        pytest.param("MIG-30e5a,MIG-00e5a", [4, 1], id="two slices"),
        pytest.param("MIG-30e5a,MIG-30e5a", [], id="a slice twice"),
        pytest.param("MIG-3", [4], id="beginning of a slice's UUID"),
        pytest.param("MIG-", [], id="beginning of all slices"),
        pytest.param("MIG-GPU-89aa/1/0", [2], id="a slice by its old name"),
        pytest.param("MIG-GPU-89aa/10/0", [11], id="another, which begins like it"),
        pytest.param("MIG-GPU-89aa/1", [], id="an old name that is cut short"),
        pytest.param("MIG-GPU-89aa/1/0,MIG-10e5a", [], id="the same by both names"),
        pytest.param("MIG-GPU-5d5b/1/0", [], id="a slice of a GPU that is whole"),
        pytest.param("MIG-30e5a,GPU-5d5b", [4], id="slices and whole ones do not mix"),
        pytest.param("1", SLICES, id="a GPU that is cut up stands for its slices"),
        pytest.param("GPU-89aa", SLICES, id="by its UUID too"),
        pytest.param("2,1", [12, *SLICES], id="a whole one and one that is cut up"),
    ],
)
def test_whole_gpus_and_slices_are_named_as_schedulers_name_them(
    value: str | None, places: list[int]
) -> None:
    assert gpus._left(CUT, value) == [CUT[place] for place in places]


def test_a_gpu_is_named_so_that_cuda_takes_no_other() -> None:
    """By CUDA's guide, the number of a GPU that is cut up is that of its first slice."""
    for gpu in CUT:
        found = gpus._left(CUT, str(gpu.place))
        assert found == [gpu]


NUMBERS = st.sampled_from(["0", "1", "5", "7", " 3", "2 ", "+4", "6gpu", "03", "-1", "x", "", "8"])
UUIDS = st.sampled_from([*(gpu.uuid for gpu in EIGHT), "GPU-3", "GPU-7000", "GPU-", "GPU-9", "0", ""])


@given(st.one_of(st.lists(NUMBERS, min_size=1, max_size=5), st.lists(UUIDS, min_size=1, max_size=5)))
def test_names_are_read_as_torch_reads_them(names: list[str]) -> None:
    def read(names: list[str]) -> list[int]:
        return [gpu.index for gpu in gpus._left(EIGHT, ",".join(names))]

    # torch also looks for names that are there twice behind one that is not valid.
    valid = next((place for place, name in enumerate(names) if not read([name])), len(names))
    names = names[: valid + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(gpus.VARIABLE, ",".join(names))
        found: list[Any] = torch.cuda._parse_visible_devices()
    if found and isinstance(found[0], str):
        found = torch.cuda._transform_uuid_to_ordinals(found, [gpu.uuid for gpu in EIGHT])
    beyond = next((place for place, index in enumerate(found) if index >= len(EIGHT)), len(found))
    assert read(names) == found[:beyond]


def test_slices_are_listed_in_place_of_their_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("pynvml"))
    assert gpus._installed() == [
        Gpu("GPU-0", 0, "A card", 80),
        Gpu("MIG-0", 1, "A card, a slice", 20, card="GPU-1", old_name="MIG-GPU-1/7/0"),
        Gpu("MIG-1", 1, "A card, a slice", 20, card="GPU-1"),
        Gpu("GPU-2", 2, "A card", bfloat16=False),
    ]


@pytest.mark.parametrize(
    ("closed", "value", "uuids"),
    [
        pytest.param((0,), None, ["MIG-0", "MIG-1", "GPU-2"], id="a job has two of three"),
        pytest.param((0, 1), "0", ["GPU-2"], id="numbers count those that it has"),
        pytest.param((0, 1), "2", [], id="and no others"),
        pytest.param((1,), "1", ["GPU-2"], id="one in between"),
        pytest.param((1,), "GPU-2,GPU-0", ["GPU-2", "GPU-0"], id="UUIDs stay what they are"),
    ],
)
def test_gpus_that_a_job_may_not_open_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    closed: tuple[int, ...],
    value: str | None,
    uuids: list[str],
) -> None:
    """As a batch system gives some of a machine's GPUs to a job, by cgroups; CUDA numbers these from 0."""
    nvml = Partly("pynvml")
    nvml.closed = closed
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(gpus, "_told", [])
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert [gpu.uuid for gpu in gpus._left(gpus._installed(), value)] == uuids
    assert caplog.text.count(f"gpus left out={len(closed)}: GPU {closed[0]}: Insufficient Permissions") == 1


@pytest.mark.parametrize("missing", ["library", "driver"])
def test_without_library_or_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    nvml = Nvml("pynvml")

    def fails() -> None:
        raise Nvml.NVMLError("driver not loaded")

    monkeypatch.setattr(nvml, "nvmlInit", fails)
    monkeypatch.setitem(sys.modules, "pynvml", nvml if missing == "driver" else None)
    assert gpus._installed() == []


def test_gpus_that_nobody_may_open_and_cards_without_a_slice_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = Partly("pynvml")
    nvml.closed = (0, 1, 2)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpus.why_none().startswith(
        "of 3 on this machine, the driver opens none: GPU 0: Insufficient Permissions; GPU 1"
    )
    nvml.closed = (0, 2)
    monkeypatch.setattr(nvml, "nvmlDeviceGetMaxMigDeviceCount", lambda handle: 0)
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 2)
    assert "the driver opens none: GPU 0" in gpus.why_none()
    nvml.closed = ()
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda index: "GPU-1")
    assert gpus.why_none() == "of 2 on this machine, MIG is on, and there is no slice"
