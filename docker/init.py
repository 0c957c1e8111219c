"""Makes what a new deployment lacks: tables, buckets, the pool, the connection and the login.

Run by the service ``init`` of docker-compose.yaml, each time that it starts: what the environment
says anew replaces what it said before, and what it says nothing of stays, such as a connection to
another storage. Secrets come by the environment and go into files that only their owner can read,
never onto a command line, which whoever lists processes can see.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

#: Where tasks find the storage's credentials.
CONNECTION = "aitp_s3"
#: One slot a GPU.
POOL = "gpu"
#: What S3 says of a bucket that is there.
_THERE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def main(environment: Mapping[str, str]) -> None:
    """Make all of it, in the order in which one needs the other."""
    airflow("db", "migrate")
    for bucket in environment["AITP_BUCKETS"].split():
        make_bucket(bucket)
    airflow("pools", "set", POOL, environment["AITP_GPU_SLOTS"], "One slot a GPU")
    set_connection(environment)
    login = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    write_private(login, {"admin": environment["AITP_ADMIN_PASSWORD"]})
    Path(environment["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]).mkdir(parents=True, exist_ok=True)


def airflow(*arguments: str) -> None:
    """Run one of Airflow's own commands."""
    subprocess.run(["airflow", *arguments], check=True)


def make_bucket(name: str) -> None:
    """Make a bucket, if it is not there."""
    try:
        boto3.client("s3").create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _THERE:
            raise


def set_connection(environment: Mapping[str, str]) -> None:
    """Give the tasks the keys of the store here, unless a person has given them another storage."""
    if present() not in (None, environment["AWS_ENDPOINT_URL"]):
        print(f"connection {CONNECTION} is to another storage than the one here: it stays", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "connections.json"
        write_private(path, {CONNECTION: connection(environment)})
        airflow("connections", "import", "--overwrite", str(path))


def present() -> str | None:
    """Where the connection leads that is there, empty where Amazon's own S3 is; None without one."""
    command = ["airflow", "connections", "get", CONNECTION, "--output", "json"]
    asked = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if asked.returncode:
        return None
    (found,) = json.loads(asked.stdout)
    return str(found["extra_dejson"].get("endpoint_url", ""))


def connection(environment: Mapping[str, str]) -> dict[str, Any]:
    """The storage's credentials as Airflow keeps them."""
    place = {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "region_name": environment["AWS_DEFAULT_REGION"],
    }
    return {
        "conn_type": "aws",
        "login": environment["AWS_ACCESS_KEY_ID"],
        "password": environment["AWS_SECRET_ACCESS_KEY"],
        "extra": json.dumps(place),
    }


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of JSON that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file)
    os.replace(part, path)


if __name__ == "__main__":
    main(os.environ)
