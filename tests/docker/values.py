"""What ``make compose-env`` writes, as one deployment has it."""

import runpy

from demo.services import REPOSITORY

#: The module ``docker/env.py``.
ENV = runpy.run_path(str(REPOSITORY / "docker/env.py"))
VALUES: dict[str, str] = {name: make() for name, make in ENV["VALUES"].items()}
