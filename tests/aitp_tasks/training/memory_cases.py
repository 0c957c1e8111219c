"""Cases for memory per GPU: parameters, ranks, ZeRO stage, bf16, LoRA share -> bytes; fits or not.

Written by somebody who had not read the code, by the ZeRO paper's formulas (Rajbhandari et al. 2020,
mixed-precision Adam: 2 bytes of weights, 2 of gradients, 12 of optimiser state - float32 copy,
momentum, variance - per TRAINED parameter). With P parameters and N ranks:
  stage 0   2 P + 2 P + 12 P               = 16 P
  stage 1   2 P + 2 P + 12 P / N
  stage 2   2 P + (2 + 12) P / N
  stage 3   (2 + 2 + 12) P / N
Without bf16 (float32): 4 of weights, 4 of gradients, 8 of optimiser (no separate copy): 16 P too
at stage 0, and the same divisions.
LoRA with share s: s * P adapter parameters BESIDE the P frozen ones; the frozen ones cost their
weights only (divided by N at stage 3 alone), the adapter the formulas above.
What is divided over ranks is rounded up to whole bytes here; allow a relative 1e-6 (DeepSpeed pads).

`bytes` holds weights + gradients + optimiser ONLY: no activations, buffers, fragmentation or CUDA
context.

`fits`: True / False where the states alone settle it: False if the states are over the GPU's bytes;
True if states + REST (8 GB) are within; "either" in between (depends on the rest assumed).
GPU sizes in bytes. An "80 GB" card has about 80 GiB = 85.9e9; GB and GiB differ by 7 %.
"""

from __future__ import annotations

from typing import Any, TypedDict

GB = 10**9
GIB = 2**30
REST = 8 * GB


class Case(TypedDict):
    name: str
    why: str
    parameters: Any
    ranks: Any
    stage: Any
    bf16: bool
    lora: Any  # 0 for a full fine-tune
    gpu: int
    answer: str  # "numbers" or "refused"
    names: str | None  # what a refusal names
    weights: int | None
    gradients: int | None
    optimiser: int | None
    bytes: int | None
    fits: bool | str | None


def up(value: int, ranks: int) -> int:
    return -(-value // ranks)


def states(parameters: int, ranks: int, stage: int, bf16: bool, lora: float) -> tuple[int, int, int]:
    """(weights, gradients, optimiser) in bytes on one GPU."""
    weight, gradient, optimiser = (2, 2, 12) if bf16 else (4, 4, 8)
    trained = parameters if lora == 0 else round(parameters * lora)
    frozen = 0 if lora == 0 else parameters
    w = weight * (trained + frozen)
    g = gradient * trained
    o = optimiser * trained
    if stage >= 1:
        o = up(o, ranks)
    if stage >= 2:
        g = up(g, ranks)
    if stage >= 3:
        w = up(w, ranks)
    return w, g, o


def fits(total: int, gpu: int) -> bool | str:
    if total > gpu:
        return False
    return True if total + REST <= gpu else "either"


B = 10**9
# name, why, parameters, ranks, stage, bf16, lora, gpu
_ROWS: list[tuple[str, str, int, int, int, bool, float, int]] = [
    ("7B, one GPU, stage 0", "16 bytes a parameter: 112 GB.", 7 * B, 1, 0, True, 0, 80 * GIB),
    (
        "7B, one GPU, stage 2",
        "On one rank nothing is divided: stage 2 saves nothing.",
        7 * B,
        1,
        2,
        True,
        0,
        80 * GIB,
    ),
    ("7B, one GPU, stage 3", "Nor does stage 3.", 7 * B, 1, 3, True, 0, 80 * GIB),
    ("7B, eight, stage 0", "Data parallel alone saves nothing per GPU.", 7 * B, 8, 0, True, 0, 80 * GIB),
    ("7B, eight, stage 1", "28 + 10.5 GB.", 7 * B, 8, 1, True, 0, 80 * GIB),
    ("7B, eight, stage 2", "14 + 12.25 GB.", 7 * B, 8, 2, True, 0, 80 * GIB),
    ("7B, eight, stage 3", "14 GB.", 7 * B, 8, 3, True, 0, 80 * GIB),
    ("7B, eight of 40 GB, stage 2", "26.25 GB: fits with the rest.", 7 * B, 8, 2, True, 0, 40 * GIB),
    (
        "7B, eight of 24 GB, stage 2",
        "26.25 GB over 24: the remedy is stage 3 (14 GB).",
        7 * B,
        8,
        2,
        True,
        0,
        24 * GIB,
    ),
    ("7B, eight of 24 GB, stage 3", "And so it is.", 7 * B, 8, 3, True, 0, 24 * GIB),
    ("7B, two, stage 2", "14 + 49 = 63 GB of 85.9.", 7 * B, 2, 2, True, 0, 80 * GIB),
    ("12B, eight, stage 2", "Pythia-12B's size: 24 + 21 = 45 GB.", 12 * B, 8, 2, True, 0, 80 * GIB),
    ("12B, one, stage 2", "192 GB: over a card of 141 GB.", 12 * B, 1, 2, True, 0, 141 * GB),
    ("70B, eight, stage 3", "140 GB on each: needs more nodes or offload.", 70 * B, 8, 3, True, 0, 80 * GIB),
    ("70B, sixty-four, stage 3", "17.5 GB.", 70 * B, 64, 3, True, 0, 80 * GIB),
    (
        "70B, sixty-four, stage 2",
        "The weights alone are 140 GB: more ranks never help stage 2.",
        70 * B,
        64,
        2,
        True,
        0,
        80 * GIB,
    ),
    ("float32, 7B, one", "4 + 4 + 8 = 16 too.", 7 * B, 1, 0, False, 0, 80 * GIB),
    ("float32, 7B, eight, stage 1", "56 + 7 GB: unlike bf16's 28 + 10.5.", 7 * B, 8, 1, False, 0, 80 * GIB),
    ("float32, 7B, eight, stage 2", "28 + 10.5 GB.", 7 * B, 8, 2, False, 0, 80 * GIB),
    ("float32, 7B, eight, stage 3", "14 GB as with bf16.", 7 * B, 8, 3, False, 0, 80 * GIB),
    ("LoRA 1 %, 7B, one, stage 0", "14 GB frozen + 16 x 70 M.", 7 * B, 1, 0, True, 0.01, 24 * GIB),
    (
        "LoRA 1 %, 7B, eight, stage 2",
        "The frozen weights are whole on each rank.",
        7 * B,
        8,
        2,
        True,
        0.01,
        24 * GIB,
    ),
    (
        "LoRA 1 %, 7B, eight, stage 3",
        "The frozen weights are divided too.",
        7 * B,
        8,
        3,
        True,
        0.01,
        24 * GIB,
    ),
    (
        "LoRA 1 %, 70B, one",
        "140 GB frozen: LoRA alone does not carry a 70B on one card.",
        70 * B,
        1,
        0,
        True,
        0.01,
        80 * GIB,
    ),
    (
        "LoRA 0.01 %, 7B",
        "A tiny adapter: the frozen weights are all that counts.",
        7 * B,
        1,
        0,
        True,
        0.0001,
        24 * GIB,
    ),
    (
        "LoRA the whole share",
        "s = 1: more than a full fine-tune (18 bytes), not less.",
        7 * B,
        1,
        0,
        True,
        1.0,
        141 * GB,
    ),
    ("tiny model", "A demo's model of 1,000 parameters.", 1000, 1, 2, True, 0, 24 * GIB),
    ("one parameter, many ranks", "Rounding up: never 0 bytes.", 1, 64, 3, True, 0, 24 * GIB),
    ("ranks do not divide", "1,000,003 over 7.", 1_000_003, 7, 2, True, 0, 24 * GIB),
    ("more ranks than parameters", "10 over 16.", 10, 16, 3, True, 0, 24 * GIB),
    (
        "exactly the GPU",
        "5e9 x 16 = 80e9 bytes on a card of 80e9: states alone fill it.",
        5 * B,
        1,
        0,
        True,
        0,
        80 * GB,
    ),
    ("a byte over the GPU", "One parameter more: refused.", 5 * B + 1, 1, 0, True, 0, 80 * GB),
    (
        "between GB and GiB",
        "83.2e9 bytes: over 80 GB, under 80 GiB (85.9e9).",
        5_200_000_000,
        1,
        0,
        True,
        0,
        80 * GIB,
    ),
    (
        "between GiB and GB, small card",
        "83.2e9 on a card of 80e9 exactly.",
        5_200_000_000,
        1,
        0,
        True,
        0,
        80 * GB,
    ),
    (
        "states and the rest exactly",
        "4.5e9 x 16 = 72e9, + 8e9 = 80e9.",
        4_500_000_000,
        1,
        0,
        True,
        0,
        80 * GB,
    ),
    (
        "a trillion",
        "10**12 on 1,024 ranks: 15.6 GB; whole numbers, no float32.",
        10**12,
        1024,
        3,
        True,
        0,
        80 * GIB,
    ),
    (
        "more than 2**63 bytes",
        "10**18 parameters: no overflow into a fitting number.",
        10**18,
        1,
        0,
        True,
        0,
        80 * GIB,
    ),
]


def _case(
    name: str, why: str, parameters: int, ranks: int, stage: int, bf16: bool, lora: float, gpu: int
) -> Case:
    w, g, o = states(parameters, ranks, stage, bf16, lora)
    return {
        "name": name,
        "why": why,
        "parameters": parameters,
        "ranks": ranks,
        "stage": stage,
        "bf16": bf16,
        "lora": lora,
        "gpu": gpu,
        "answer": "numbers",
        "names": None,
        "weights": w,
        "gradients": g,
        "optimiser": o,
        "bytes": w + g + o,
        "fits": fits(w + g + o, gpu),
    }


def _bad(name: str, why: str, names: str, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "parameters": 7 * B,
        "ranks": 8,
        "stage": 2,
        "bf16": True,
        "lora": 0,
        "gpu": 80 * GIB,
        **changes,
    }
    return {
        "name": name,
        "why": why,
        "parameters": values["parameters"],
        "ranks": values["ranks"],
        "stage": values["stage"],
        "bf16": values["bf16"],
        "lora": values["lora"],
        "gpu": values["gpu"],
        "answer": "refused",
        "names": names,
        "weights": None,
        "gradients": None,
        "optimiser": None,
        "bytes": None,
        "fits": None,
    }


CASES: list[Case] = [_case(*row) for row in _ROWS] + [
    _bad(
        "no parameters",
        "0: a config that was not understood would fit everywhere.",
        "parameters",
        parameters=0,
    ),
    _bad("negative parameters", "The same.", "parameters", parameters=-1),
    _bad("no ranks", "A division by zero.", "ranks", ranks=0),
    _bad("negative ranks", "Negative bytes fit everywhere.", "ranks", ranks=-8),
    _bad("stage four", "There is none; `stage >= 3` would take it.", "stage", stage=4),
    _bad("stage negative", "-1.", "stage", stage=-1),
    _bad("stage true", "True is 1.", "stage", stage=True),
    _bad("stage as text", "'2' >= 1 is a TypeError.", "stage", stage="2"),
    _bad("LoRA share over one", "8 meant the rank r, not a share.", "lora", lora=8),
    _bad("LoRA share negative", "-0.01.", "lora", lora=-0.01),
    _bad("LoRA share nan", "NaN compares False with everything: it would fit.", "lora", lora=float("nan")),
    _bad("GPU of no size", "0 bytes: a device that could not be asked; say so, do not divide.", "gpu", gpu=0),
]
