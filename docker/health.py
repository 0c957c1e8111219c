"""Whether one part of Airflow is well: ``health.py PART [WORKER]``, by its exit code, for health checks.

The scheduler, the DAG processor and the triggerer tell the database that they live, and the
API server tells it: to ask there costs a request, where Airflow's own check starts an
interpreter with all of Airflow each time. A Celery worker is asked through the broker.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from urllib.request import urlopen

SECONDS = 8.0
#: Of a worker's answer; the program that asks needs some seconds to start.
WORKER_SECONDS = 45.0
CELERY = "airflow.providers.celery.executors.celery_executor.app"


def is_well(part: str, worker: str = "celery") -> bool:
    """Whether it is there and answers.

    Args:
        part: ``metadatabase``, ``scheduler``, ``dag_processor``, ``triggerer`` or ``worker``.
        worker: what a worker of this host is called.
    """
    if part == "worker":
        host = socket.gethostname()
        asked = ["celery", "--app", CELERY, "inspect", "ping", "--destination", f"{worker}@{host}"]
        return subprocess.run(asked, stdout=subprocess.DEVNULL, timeout=WORKER_SECONDS).returncode == 0
    api = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
    with urlopen(f"{api}/api/v2/monitor/health", timeout=SECONDS) as answer:
        return bool(json.load(answer)[part]["status"] == "healthy")


if __name__ == "__main__":
    try:
        sys.exit(not is_well(*sys.argv[1:]))
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{sys.argv[1]} does not answer: {error}")
