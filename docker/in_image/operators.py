"""DeepSpeed's operator was compiled with the image, for this processor: nothing is built now."""

import time

from aitp_tasks.training import operators

expected = operators._cache() / operators._identity()
assert expected.is_dir(), f"no {expected}: {list(operators._cache().glob('*'))}"
began = time.monotonic()
assert operators.build() == expected
assert list(expected.rglob("*.so")), list(expected.rglob("*"))
print(f"operator={expected.name} seconds={time.monotonic() - began:.2f}")
