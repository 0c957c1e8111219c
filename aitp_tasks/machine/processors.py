"""What this machine's processors can do."""

#: As the kernel calls the instructions, on x86 and on ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def compute_bfloat16() -> bool:
    """Whether they compute in bfloat16; where they do not, it is emulated, slower than float32."""
    return not _BFLOAT16.isdisjoint(flags())


def flags() -> set[str]:
    """The instruction sets that the kernel tells of; none where it tells nothing."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return next(
                (set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set()
            )
    except OSError:
        return set()
