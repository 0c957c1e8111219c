"""Pictures of the demo for docs/: its last run in Airflow, and that run's report.

``make pictures`` runs the demo first; the pictures of forms and dialogs are test_browser.py's.
"""

import tempfile
from pathlib import Path

from playwright.sync_api import expect

from demo.services import DAG, STATE, AirflowClient, Services
from tests.e2e import browser

#: Of the report, its beginning.
REPORT_SIZE = browser.size(1100, 1500)


def last_run(client: AirflowClient) -> str:
    """The newest run that went well."""
    query = {"state": "success", "order_by": "-run_after", "limit": 1}
    (run,) = client._get(f"/api/v2/dags/{DAG}/dagRuns", **query)["dag_runs"]
    return str(run["dag_run_id"])


def read(services: Services, uri: str) -> bytes:
    """An object of the demo's store."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    data: bytes = services.bucket_client().get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def main() -> None:
    services = Services(STATE / "demo")
    client = services.client()
    run = last_run(client)
    with browser.opened(services) as ui, tempfile.TemporaryDirectory() as folder:
        ui.show("runs", run)
        expect(ui.page.get_by_role("row").filter(has_text="embed").first).to_be_visible()
        ui.picture("airflow.png")
        page = Path(folder) / "report.html"
        page.write_bytes(read(services, client.result(run, "report")["report"]))
        ui.page.set_viewport_size(REPORT_SIZE)
        ui.page.goto(page.as_uri())
        ui.picture("report.png")


if __name__ == "__main__":
    main()
