"""A hundred nights on one line of versions: the test's own, with its figures.

nights_share_max: the largest share of rewritten pairs after any night, over the
limit. nights_versions: how many of the nights made a version. The others: median of
the last twenty nights over that of the second twenty, of seconds, of seconds of
processors, of bytes that stay, of bytes that are read and of objects that are listed.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from embedders import REPOSITORY

_TEST = "tests/aitp_tasks/records/test_versions_hundred_nights.py"


def nights(folder: Path) -> dict[str, Any]:
    """Run them, which fails when one of the test's promises does not hold."""
    told = folder / "told.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", _TEST, f"--junitxml={told}"],
        check=True,
        cwd=REPOSITORY,
    )
    # What our own test has written a moment ago.
    found = ElementTree.parse(told).iter("property")
    return {str(entry.get("name")): float(str(entry.get("value"))) for entry in found}
