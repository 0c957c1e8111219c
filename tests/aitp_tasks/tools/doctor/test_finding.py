"""What a finding says to people and programs, and what it never says."""

import json

import pytest

from aitp_tasks.errors import ExitCode
from aitp_tasks.tools.doctor.finding import Finding, Level, exit_code, table


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ([], ExitCode.DONE),
        ([Level.OK, Level.NOTE], ExitCode.DONE),
        ([Level.PASSING, Level.OK], ExitCode.TRANSIENT),
        # What stays wrong is not mended by another try.
        ([Level.WRONG, Level.PASSING, Level.OK], ExitCode.BAD_INPUT),
    ],
)
def test_the_worst_decides(levels: list[Level], code: ExitCode) -> None:
    assert exit_code([Finding("x", level, "y") for level in levels]) is code


def test_nothing_of_a_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("SOME_TOKEN", "ok")
    said = "s3://me:pass@host failed with hidden-secret, ok\nnext \x1b[2J line"
    finding = Finding("store", Level.WRONG, said, "ask https://key@host for hidden-secret")
    shown = json.dumps(finding.told()) + table([finding])
    assert all(secret not in shown for secret in ("hidden-secret", "pass@", "key@", "\x1b"))
    # Short values are parts of words.
    assert ", ok next" in shown


def test_the_table_has_a_line_a_finding_and_one_a_remedy() -> None:
    findings = [
        Finding("memory", Level.OK, "much", seconds=0.01),
        Finding("GPUs", Level.WRONG, "none", "buy", seconds=2.0),
    ]
    assert table(findings).splitlines() == [
        "ok      memory  much",
        "wrong   GPUs    none (2.0 s)",
        "                → buy",
    ]
