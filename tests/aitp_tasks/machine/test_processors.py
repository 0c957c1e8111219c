"""What the processors can do, against what torch finds out by itself."""

import builtins
import io
from typing import Any

import pytest
import torch

from aitp_tasks.machine import processors

#: The lines by which the kernel tells of some processors, and whether these compute in bfloat16.
KNOWN = {
    "flags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16\nflags\t\t: fpu\n": True,
    "processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n": True,
    "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512bw\n": False,
    "model name\t: avx512_bf16\nflags\t\t: fpu avx2\n": False,
    "processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm\n": True,
    "processor\t: 0\nFeatures\t: fp asimd\n": False,
    "processor\t: 0\n": False,
    "": False,
}


def test_this_machine_is_told_of_as_torch_does() -> None:
    can = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert processors.compute_bfloat16() == bool(can)


@pytest.mark.parametrize(("told", "can"), KNOWN.items())
def test_what_the_kernel_tells_of_other_machines(
    monkeypatch: pytest.MonkeyPatch, told: str, can: bool
) -> None:
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO(told))
    assert processors.compute_bfloat16() is can


def test_where_nothing_is_told_nothing_is_supposed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", missing)
    assert not processors.compute_bfloat16()
