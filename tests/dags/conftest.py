"""Airflow's own files go to a temporary folder, not to the home of whoever runs the tests."""

import os
import tempfile

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="aitp-airflow-")
