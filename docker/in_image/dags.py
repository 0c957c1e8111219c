"""The DAG folder as the image's environment names it imports without an error."""

from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(conf.get("core", "dags_folder"))
assert not bag.import_errors, bag.import_errors
assert {"aitp_refresh", "aitp_maintenance"} <= set(bag.dags), sorted(bag.dags)
print(f"dags={','.join(sorted(bag.dags))}")
