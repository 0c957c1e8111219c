"""Pod templates of KubernetesExecutor: whether a stage's pod asks for the GPUs that its task leases.

A pod that asks for fewer finds too few when it runs, after all stages before it have been paid for; one that
asks for more keeps GPUs from others. What else a template says is Kubernetes' to judge.
"""

from pathlib import Path
from typing import Any

import yaml

from aitp_tasks.errors import InputError

#: Whole GPUs and slices of them.
_RESOURCES = "nvidia.com/"
#: Airflow puts the task's command into this container.
_CONTAINER = "base"


def require(template: str, setting: str, gpus: int | None) -> None:
    """Refuse a template that cannot be a pod of a stage.

    Args:
        template: path of the file.
        setting: that names it.
        gpus: that a task leases; None where that is seen only when it runs.

    Raises:
        InputError: there is no such file, it is no pod with a container ``base``, or it asks for another
            number of GPUs.
    """
    asked = _gpus(_base(template, setting))
    if gpus is not None and asked != [str(gpus)] * bool(gpus):
        raise InputError(
            f"{setting}={template} asks for {' and '.join(asked) or 'no'} GPUs ({_RESOURCES}… in the limits "
            f"of its container {_CONTAINER}), and a task of its stages leases {gpus}: let both be the same"
        )


def _base(template: str, setting: str) -> dict[str, Any]:
    """The container of the task."""
    try:
        pod = yaml.safe_load(Path(template).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{setting}={template} cannot be read ({error.strerror}): name an existing file")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{setting}={template} is not YAML: {' '.join(str(error).split())}")
    containers = _mapping(_mapping(pod).get("spec")).get("containers")
    found = [_mapping(one) for one in (containers if isinstance(containers, list) else [])]
    if _mapping(pod).get("kind") != "Pod" or not found or found[0].get("name") != _CONTAINER:
        raise InputError(
            f"{setting}={template} is no pod whose first container is called {_CONTAINER}: begin with one of "
            "docker/kubernetes/pods/"
        )
    return found[0]


def _gpus(container: dict[str, Any]) -> list[str]:
    """How many GPUs it asks for, of each kind; a limit is its own request."""
    limits = _mapping(_mapping(container.get("resources")).get("limits"))
    return [str(count) for name, count in limits.items() if str(name).startswith(_RESOURCES)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
