"""Links on every task of a run: what its stage has written, the report, and all of the run.

What lies in a bucket has no address of its own that a browser could open: ``AITP_BROWSE_URL``
says by which page your store shows it, with ``{bucket}`` and ``{key}``, e.g.
``https://console.aws.amazon.com/s3/buckets/{bucket}?prefix={key}``. Without it, the URI
itself is the link, to be copied.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from aitp_assets import report_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

BROWSE_VARIABLE = "AITP_BROWSE_URL"


def browsable(uri: str) -> str:
    """Address of a page that shows what lies at a URI, or the URI."""
    template = os.environ.get(BROWSE_VARIABLE, "")
    scheme, _, rest = uri.partition("://")
    if not template or scheme != "s3":
        return uri
    bucket, _, key = rest.partition("/")
    return template.replace("{bucket}", quote(bucket)).replace("{key}", quote(key))


class _RunLink(BaseOperatorLink):
    """A link into the run that an operator works on; empty while there is none."""

    name = ""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Its address."""
        run = getattr(operator, "run", None)
        return browsable(self.place(str(run), operator)) if run else ""

    def place(self, run: str, operator: Any) -> str:
        """The URI that is meant."""
        raise NotImplementedError


class OutputsLink(_RunLink):
    """What the stage has written into its run."""

    name = "Outputs"

    def place(self, run: str, operator: Any) -> str:
        """The stage's folder."""
        return f"{run}/{operator.stage}/"


class ReportLink(_RunLink):
    """The run's report; it is there when the run has ended."""

    name = "Report"

    def place(self, run: str, operator: Any) -> str:
        """The page."""
        return report_of(run)


class RunLink(_RunLink):
    """All that the run has written."""

    name = "Run"

    def place(self, run: str, operator: Any) -> str:
        """The run's folder."""
        return f"{run}/"


LINKS: tuple[BaseOperatorLink, ...] = (OutputsLink(), ReportLink(), RunLink())
