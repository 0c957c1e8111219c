"""Placeholder."""

from aitp_tasks import config
from aitp_tasks.engine import Engine


def EndpointEngine(settings: config.Engine) -> Engine:  # noqa: N802
    raise NotImplementedError
