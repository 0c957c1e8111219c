"""The images' file by hadolint and by rules of our own; `make images-test` builds and runs them."""

import fnmatch
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
IMAGES = ("airflow", "worker")
HOST = socket.gethostname()


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", kept).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def stages(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for one in instructions(text):
        if one.name == "FROM":
            _, _, name = one.value.partition(" AS ")
            current = found[name] = [one]
        else:
            current.append(one)
    return found


STAGES = stages(DOCKERFILE.read_text())


def values(stage: str, name: str) -> list[str]:
    """What the instructions of one name say in a stage and in those that it begins with."""
    (begins,) = (one.value.split()[0] for one in STAGES[stage] if one.name == "FROM")
    before = values(begins, name) if begins in STAGES else []
    return before + [one.value for one in STAGES[stage] if one.name == name]


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text(DOCKERFILE.read_text().replace("USER 50000:0", "USER root"))
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "--no-color", planted], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3002" in done.stdout


@pytest.mark.parametrize("stage", IMAGES)
def test_an_image_runs_as_a_user_is_asked_how_it_is_and_reaps_what_is_left(stage: str) -> None:
    # By number: Kubernetes cannot tell whether a name is root's.
    assert values(stage, "USER")[-1] == "50000:0"
    (check,) = values(stage, "HEALTHCHECK")
    assert check.endswith('CMD ["/opt/aitp/docker/healthcheck"]')
    assert values(stage, "ENTRYPOINT") == ['["/usr/bin/tini", "--"]']
    assert all(value.startswith("[") for value in values(stage, "CMD"))
    environment = " ".join(values(stage, "ENV")).split()
    assert [one for one in environment if one.startswith("PATH=")] == [
        "PATH=/opt/aitp/.venv/airflow/bin:$PATH"
    ]
    assert "AIRFLOW_HOME=/opt/airflow" in environment


def test_both_images_are_of_the_same_file_and_only_the_worker_compiles() -> None:
    assert list(STAGES)[-2:] == ["airflow", "worker"]
    installed = {stage: " ".join(values(stage, "RUN")) for stage in IMAGES}
    assert "g++" not in installed["airflow"]
    assert "g++" in installed["worker"]


def test_nothing_comes_from_an_address_and_no_secret_goes_in() -> None:
    text = DOCKERFILE.read_text()
    assert all(one.name != "ADD" for stage in STAGES.values() for one in stage)
    assert not re.search(r"https?://", text)
    # A build argument or variable stays in the image's history; a mounted secret does not.
    names = [
        one.value
        for stage in [instructions(text), *STAGES.values()]
        for one in stage
        if one.name in {"ARG", "ENV"}
    ]
    assert not [
        name
        for name in names
        if re.search(r"token|password|secret|key|index|credential", name, re.IGNORECASE)
    ]
    mounted = re.findall(r"--mount=type=secret,id=(\w+)", text)
    assert set(mounted) == {"pip", "uv"}


def test_the_base_is_pinned_and_another_can_be_named() -> None:
    (base,) = [one.value for one in instructions(DOCKERFILE.read_text()) if one.value.startswith("BASE=")]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.11-slim-bookworm", base)
    assert {one.value.split()[0] for stage in STAGES.values() for one in stage[:1]} <= {*STAGES, "${BASE}"}


def copied() -> list[str]:
    """What is copied from the repository, of both workers."""
    sources = [
        source
        for stage in STAGES.values()
        for one in stage
        if one.name == "COPY" and "--from=" not in one.value
        for source in one.value.split()[:-1]
    ]
    kinds = [source.replace("${WORKER}", kind) for source in sources for kind in ("cpu", "gpu")]
    return sorted(set(kinds))


def test_all_that_is_copied_is_there_and_is_handed_to_the_builder() -> None:
    assert len(copied()) > 10
    for source in copied():
        assert (REPOSITORY / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize(
    "path",
    [".venv", ".aitp", ".git", ".env", "tests", "docs", "demo/run.py", "docker/test", "docker/in_image"],
)
def test_what_is_no_part_of_an_image_is_left_out(path: str) -> None:
    assert ignored(path)
    assert not any(path == source or path.startswith(f"{source}/") for source in copied())


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last line that fits it or a folder of it counts."""
    left_out = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        if any(fnmatch.fnmatch("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1)):
            left_out = not line.startswith("!")
    return left_out


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("airflow scheduler", "airflow jobs check --job-type SchedulerJob --local"),
        ("airflow dag-processor", "airflow jobs check --job-type DagProcessorJob --local"),
        ("airflow triggerer", "airflow jobs check --job-type TriggererJob --local"),
        ("/usr/bin/tini -- airflow celery worker --queues gpu", "inspect ping --destination celery@"),
        # As docs/how-to/celery.md has it, and by Celery's own rule for a name without a host.
        ("airflow celery worker --queues gpu --celery-hostname gpu@%h", f"--destination gpu@{HOST}\n"),
        ("airflow celery worker -H gpu --concurrency 8", "--destination celery@gpu\n"),
        ("airflow celery worker --celery-hostname=a-%h@b", f"--destination a-{HOST}@b\n"),
        ("/usr/bin/tini -- airflow api-server", "http://127.0.0.1:8080/api/v2/version"),
        ("airflow api-server --host 0.0.0.0 --port 9090", "http://127.0.0.1:9090/api/v2/version"),
        ("airflow api-server -p 9091 --workers 1", "http://127.0.0.1:9091/api/v2/version"),
        ("bash -c exec airflow scheduler", "SchedulerJob"),
        ("aitp embed --run file:///run --unit 3", None),
        ("python -m airflow.sdk.execution_time.execute_workload", None),
    ],
)
@pytest.mark.parametrize("well", [True, False])
def test_the_health_check_asks_the_service_that_runs(
    tmp_path: Path, command: str, asked: str | None, well: bool
) -> None:
    log = tmp_path / "asked"
    for name in ("airflow", "celery", "python"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\nexit {0 if well else 1}\n')
        program.chmod(0o755)
    service = subprocess.Popen(["bash", "-c", 'exec -a "$0" sleep 60', command])
    try:
        cmdline = Path(f"/proc/{service.pid}/cmdline")
        while (
            b"sleep" in cmdline.read_bytes().split(b"\0")[0] or command.encode() not in cmdline.read_bytes()
        ):
            pass
        done = subprocess.run(
            [FOLDER / "healthcheck", str(service.pid)],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
        )
    finally:
        service.kill()
        service.wait()
    said = log.read_text() if log.exists() else ""
    assert (asked or "") in said
    assert bool(said) == (asked is not None)
    assert (done.returncode == 0) == (well or asked is None)
