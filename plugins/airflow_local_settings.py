"""Airflow reads its policies from a module of this name; ours is in ``aitp_labels``.

An Airflow with an ``airflow_local_settings.py`` of its own finds that one first: then
import the policy there.
"""

from aitp_labels import task_instance_mutation_hook

__all__ = ["task_instance_mutation_hook"]
