"""The services of one machine: the object store (SeaweedFS) and Airflow, and their end.

What is here: starting both with generated credentials on free ports of
127.0.0.1, stopping them without leaving a process, and thin doors to both:
``AirflowClient`` over REST, ``bucket_client`` over S3. What is not here: what the
demo runs on them (demo/run.py).

Everything lives in one state folder, so that several sets of services can run
beside each other. The object store's S3 port asks for credentials, its filer and
volumes for signed tokens; its status pages and its gRPC ports, on 127.0.0.1 too,
ask for nothing, hence another user of the same machine could reach the store
there. Airflow's database is SQLite. Neither is meant for more than one person.

``python -m demo.services stop`` ends what ``make demo`` left running.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import boto3
import httpx
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[1]
STATE = REPOSITORY / ".aitp"
AIRFLOW_PROGRAM = Path(sys.executable).parent / "airflow"
WORKER_PROGRAM = REPOSITORY / ".venv" / "worker" / "bin" / "aitp"
CONFIG = REPOSITORY / "configs" / "demo.yaml"

DAG = "aitp_refresh"
USER = "admin"
REGION = "us-east-1"
CONNECTION = "aitp_s3"
NOTE_CONNECTION = "aitp_airflow"
#: Name and slots. One GPU slot, because here the two processors are the device.
POOLS = {"gpu": 1}
#: LocalExecutor forks this many workers of about 145 MB.
PARALLELISM = 4

#: Carried by every process of these services, and by all that they start: whose it is.
OWNER_VARIABLE = "AITP_SERVICES"
#: SeaweedFS finds a component's gRPC port by this distance.
GRPC_OFFSET = 10_000
#: Below the ports that systems hand out to outgoing connections.
PORTS = range(11_000, 22_000)
STORE_COMPONENTS = ("s3", "master", "volume", "filer", "admin")
STORE_SECONDS = 60.0
AIRFLOW_SECONDS = 180.0
STOP_SECONDS = 15.0


class ServiceError(Exception):
    """A service did not start or does not answer; the message says where its log is."""


@dataclass(frozen=True)
class Ports:
    """One port a service; a component of the store also has ``GRPC_OFFSET`` above it."""

    airflow: int
    s3: int
    master: int
    volume: int
    filer: int
    admin: int

    def all(self) -> Iterator[tuple[str, int]]:
        """Name and number of every port in use."""
        for name, port in asdict(self).items():
            yield name, port
            if name in STORE_COMPONENTS:
                yield f"{name} (gRPC)", port + GRPC_OFFSET


@dataclass(frozen=True)
class Credentials:
    """What the services know their friends by; generated once for a state folder."""

    access_key: str
    secret_key: str
    password: str
    fernet_key: str
    jwt_secret: str
    store_key: str

    @classmethod
    def generate(cls) -> Credentials:
        """New random credentials."""
        return cls(
            access_key=secrets.token_hex(10),
            secret_key=secrets.token_urlsafe(30),
            password=secrets.token_urlsafe(12),
            fernet_key=urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            jwt_secret=secrets.token_urlsafe(48),
            store_key=secrets.token_urlsafe(32),
        )


class Services:
    """The object store and Airflow in one state folder.

    Ports and credentials are chosen at the first start and kept, because a
    stopped store remembers its own addresses.

    Args:
        state_dir: folder of everything that they write; private to its owner.
        weed: the SeaweedFS binary.
        worker: the worker environment's ``aitp``.
        config: configuration file that the DAG's runs start from.
        environment: further variables for all processes.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        weed: Path = STATE / "bin" / "weed",
        worker: Path = WORKER_PROGRAM,
        config: Path = CONFIG,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.logs = self.state_dir / "logs"
        self.airflow_home = self.state_dir / "airflow"
        self.login_file = self.state_dir / "login.json"
        self._weed = weed
        self._worker = worker
        self._config = config
        self._environment = dict(environment or {})
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        self.credentials = Credentials(
            **self._keep("credentials.json", lambda: asdict(Credentials.generate()))
        )
        self.ports = Ports(**self._keep("ports.json", lambda: asdict(free_ports())))

    @property
    def endpoint(self) -> str:
        """The object store's S3 address."""
        return f"http://{HOST}:{self.ports.s3}"

    @property
    def ui(self) -> str:
        """Airflow's address."""
        return f"http://{HOST}:{self.ports.airflow}"

    def start(self) -> None:
        """Start what does not run yet, and wait until it answers.

        Raises:
            ServiceError: a port is in use, or a service does not come up.
        """
        if self.running() and self._store_answers() and self._airflow_answers():
            return
        self.stop()
        self.start_store()
        self.start_airflow()

    def start_store(self) -> None:
        """Start the object store alone.

        Raises:
            ServiceError: a port is in use, or it does not come up.
        """
        self._check_ports(STORE_COMPONENTS)
        store = self.state_dir / "store"
        store.mkdir(exist_ok=True)
        write_private(store / "s3.json", json.dumps(self._identities()))
        write_private(store / "security.toml", self._store_security())
        data = store / "data"
        data.mkdir(exist_ok=True)
        flags = {
            "dir": data,
            "ip": HOST,
            "ip.bind": HOST,
            "s3.config": store / "s3.json",
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            **{f"{name}.port": getattr(self.ports, name) for name in STORE_COMPONENTS},
            **{f"{name}.port.grpc": getattr(self.ports, name) + GRPC_OFFSET for name in STORE_COMPONENTS},
        }
        command = [str(self._weed), "-logtostderr=true", f"-config_dir={store}", "mini"]
        process = self._spawn("store", command + [f"-{name}={value}" for name, value in flags.items()], store)
        self._wait("store", [process], self._store_answers, STORE_SECONDS)

    def start_airflow(self) -> None:
        """Start Airflow alone: scheduler, DAG processor, triggerer and API server.

        Not ``airflow standalone``, whose log servers listen on all addresses.

        Raises:
            ServiceError: a port is in use, or it does not come up.
        """
        self._check_ports(("airflow",))
        self.airflow_home.mkdir(exist_ok=True)
        write_private(self.login_file, json.dumps({USER: self.credentials.password}))
        migration = self._spawn("db-migrate", [str(AIRFLOW_PROGRAM), "db", "migrate"], REPOSITORY)
        if migration.wait() != 0:
            raise ServiceError(f"Airflow's database could not be made: see {self.logs / 'db-migrate.log'}")
        components = {
            "api-server": ["--host", HOST, "--port", str(self.ports.airflow), "--workers", "1"],
            "dag-processor": [],
            "triggerer": ["--skip-serve-logs"],
        }
        processes = [self._spawn_airflow(name, *arguments) for name, arguments in components.items()]
        processes.append(self.start_scheduler())
        self._wait("airflow", processes, self._airflow_answers, AIRFLOW_SECONDS)

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start the scheduler alone, as where it was killed."""
        return self._spawn_airflow("scheduler", "--skip-serve-logs")

    def stop(self) -> None:
        """End every process of these services: Airflow first, then the store, so that it can write out."""
        processes = list(self.processes())
        store = [process for process in processes if _name(process) == "weed"]
        end_processes([process for process in processes if process not in store])
        end_processes(store)
        # Started by one of them in its last moment.
        while leftover := list(self.processes()):
            end_processes(leftover)
        # SeaweedFS leaves some of its sockets behind.
        for _, port in self.ports.all():
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether any process of these services lives."""
        return next(self.processes(), None) is not None

    def processes(self) -> Iterator[psutil.Process]:
        """Every living process that these services started, directly or not."""
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(OWNER_VARIABLE) == str(self.state_dir):
                    yield process
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue

    def client(self) -> AirflowClient:
        """A logged-in door to Airflow."""
        return AirflowClient(self.ui, USER, self.credentials.password)

    def storage_environment(self) -> dict[str, str]:
        """The ``AWS_*`` variables by which a process reaches the object store."""
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }

    def bucket_client(self) -> Any:
        """A boto3 S3 client of the object store."""
        return bucket_client(self.endpoint, self.credentials.access_key, self.credentials.secret_key)

    def airflow_environment(self) -> dict[str, str]:
        """The variables that make these Airflow processes what they are."""
        settings = {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(PARALLELISM),
            "CORE__FERNET_KEY": self.credentials.fernet_key,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.login_file),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.ui}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.airflow_home / 'airflow.db'}",
            "API__HOST": HOST,
            "API__PORT": str(self.ports.airflow),
            "API__BASE_URL": self.ui,
            "API__SECRET_KEY": self.credentials.jwt_secret,
            "API_AUTH__JWT_SECRET": self.credentials.jwt_secret,
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # No nightly runs here: unpausing would start the latest one for a dump that does not exist.
            "SCHEDULER__USE_JOB_SCHEDULE": "False",
            "LOGGING__BASE_LOG_FOLDER": str(self.logs / "tasks"),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return {
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            "AIRFLOW_HOME": str(self.airflow_home),
            "AITP_COMMAND": str(self._worker),
            # What stages prepare once, such as the compiled encoder, stays with the checkout.
            "AITP_CACHE": str(STATE / "cache"),
            "AITP_CONFIG": str(self._config),
        }

    def _keep(self, name: str, make: Any) -> Any:
        path = self.state_dir / name
        if not path.exists():
            write_private(path, json.dumps(make()))
        return json.loads(path.read_text())

    def _spawn_airflow(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._spawn(name, [str(AIRFLOW_PROGRAM), name, *arguments], REPOSITORY)

    def _spawn(self, name: str, command: list[str], directory: Path) -> subprocess.Popen[bytes]:
        """Start one service in a session of its own, its output in its log."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "AWS_"))
        }
        environment = {
            **inherited,
            **self.airflow_environment(),
            **self._environment,
            OWNER_VARIABLE: str(self.state_dir),
            # Otherwise a process that renames itself overwrites its environment, and with it its owner.
            "SPT_NOENV": "1",
            "PATH": f"{AIRFLOW_PROGRAM.parent}:{os.environ.get('PATH', os.defpath)}",
        }
        if name == "store":
            environment = {**inherited, OWNER_VARIABLE: str(self.state_dir)}
        with (self.logs / f"{name}.log").open("ab") as log:
            try:
                return subprocess.Popen(
                    command,
                    cwd=directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServiceError(
                    f"{command[0]} cannot be started ({error.strerror}): run `make setup`"
                ) from error

    def _wait(
        self, name: str, processes: list[subprocess.Popen[bytes]], answers: Any, seconds: float
    ) -> None:
        deadline = time.monotonic() + seconds
        while not answers():
            for process in processes:
                if process.poll() is not None:
                    self.stop()
                    raise ServiceError(
                        f"{name} ended with exit code {process.returncode}: see the logs in {self.logs}"
                    )
            if time.monotonic() > deadline:
                self.stop()
                raise ServiceError(
                    f"{name} does not answer after {seconds:.0f} s: see the logs in {self.logs}"
                )
            time.sleep(0.2)

    def _check_ports(self, names: tuple[str, ...]) -> None:
        for name, port in self.ports.all():
            if name.split()[0] in names and not is_free(port):
                raise ServiceError(
                    f"port {port} of 127.0.0.1, kept for {name}, is in use by another process: "
                    f"stop that one (`ss -ltnp` names it), or remove {self.state_dir / 'ports.json'} "
                    "to have new ports chosen"
                )

    def _store_answers(self) -> bool:
        """Whether it lists its buckets, and knows where its objects are: it may answer before that."""
        try:
            self.bucket_client().list_buckets()
            status = httpx.get(f"http://{HOST}:{self.ports.master}/dir/status", timeout=5).json()
        except (BotoCoreError, ClientError, httpx.HTTPError, ValueError):
            return False
        return bool(status["Topology"]["Max"] > 0)

    def _airflow_answers(self) -> bool:
        try:
            health = httpx.get(f"{self.ui}/api/v2/monitor/health", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor")
        return all(health.get(part, {}).get("status") == "healthy" for part in parts)

    def _identities(self) -> dict[str, Any]:
        keys = {"accessKey": self.credentials.access_key, "secretKey": self.credentials.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        return {"identities": [{"name": "aitp", "credentials": [keys], "actions": actions}]}

    def _store_security(self) -> str:
        """Signed tokens for the filer's and the volumes' HTTP, which would let everyone in."""
        sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        return "\n".join(f'[{section}]\nkey = "{self.credentials.store_key}"\n' for section in sections)


class AirflowClient:
    """Airflow's REST API, as far as the demo and the tests need it.

    Args:
        url: address of the API server.
        user: login.
        password: its password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        # Patient: on two busy processors an answer can take a while.
        self._http = httpx.Client(base_url=url, timeout=60, transport=httpx.HTTPTransport(retries=3))
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        self._check(answer)
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def wait_for_dag(self, dag: str = DAG, seconds: float = 60.0) -> None:
        """Wait until the DAG is parsed.

        Raises:
            ServiceError: it cannot be imported, or does not appear in time.
        """
        deadline = time.monotonic() + seconds
        while self._http.get(f"/api/v2/dags/{dag}").status_code != httpx.codes.OK:
            for error in self._get("/api/v2/importErrors")["import_errors"]:
                last = error["stack_trace"].strip().splitlines()[-1]
                raise ServiceError(f"{error['filename']} cannot be imported: {last}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"DAG {dag} does not appear after {seconds:.0f} s: see the DAG processor's log"
                )
            time.sleep(0.5)

    def put_pools(self, pools: Mapping[str, int]) -> None:
        """Create pools or set their slots."""
        for name, slots in pools.items():
            body = {"name": name, "slots": slots, "include_deferred": False}
            self._put("/api/v2/pools", name, body)

    def put_s3_connection(self, services: Services, name: str = CONNECTION) -> None:
        """Create or replace the connection that gives stages their credentials."""
        extra = {"endpoint_url": services.endpoint, "region_name": REGION}
        body = {
            "connection_id": name,
            "conn_type": "aws",
            "login": services.credentials.access_key,
            "password": services.credentials.secret_key,
            "extra": json.dumps(extra),
        }
        self._put("/api/v2/connections", name, body)

    def put_note_connection(self, services: Services, name: str = NOTE_CONNECTION) -> None:
        """Create or replace the connection by which plan notes its estimate on the run."""
        password = services.credentials.password
        body = {"connection_id": name, "conn_type": "http", "login": USER, "password": password}
        self._put("/api/v2/connections", name, body)

    def note(self, run: str, dag: str = DAG) -> str:
        """The note of a run."""
        return str(self._get(f"/api/v2/dags/{dag}/dagRuns/{run}")["note"] or "")

    def put_note(self, run: str, note: str, dag: str = DAG) -> None:
        """Write the note of a run, as a person does."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}"
        self._check(self._http.patch(path, params={"update_mask": "note"}, json={"note": note}))

    def set_paused(self, paused: bool, dag: str = DAG) -> None:
        """Pause or unpause the DAG."""
        self._check(self._http.patch(f"/api/v2/dags/{dag}", json={"is_paused": paused}))

    def trigger(self, conf: Mapping[str, Any], *, partition_key: str | None = None, dag: str = DAG) -> str:
        """Start a run with these params; its id.

        Raises:
            ServiceError: a param is wrong.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf)}
        if partition_key is not None:
            body["partition_key"] = partition_key
        answer = self._http.post(f"/api/v2/dags/{dag}/dagRuns", json=body)
        self._check(answer)
        return str(answer.json()["dag_run_id"])

    def active_run(self, dag: str = DAG) -> str | None:
        """A run that has not ended, if there is one."""
        runs = self._get(f"/api/v2/dags/{dag}/dagRuns", state=["queued", "running"], limit=1)["dag_runs"]
        return str(runs[0]["dag_run_id"]) if runs else None

    def state(self, run: str, dag: str = DAG) -> str:
        """State of a run."""
        return str(self._get(f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])

    def wait(self, run: str, dag: str = DAG, seconds: float = 3600.0) -> str:
        """Final state of a run: ``success`` or ``failed``.

        Raises:
            ServiceError: it takes longer.
        """
        deadline = time.monotonic() + seconds
        while (state := self.state(run, dag)) not in ("success", "failed"):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"run {run} is still {state} after {seconds:.0f} s: see its tasks in the UI"
                )
            time.sleep(1)
        return state

    def task_instances(self, run: str, dag: str = DAG) -> list[dict[str, Any]]:
        """All task instances of a run, as the API tells them."""
        instances: list[dict[str, Any]] = []
        while True:
            page = self._get(
                f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances",
                limit=100,
                offset=len(instances),
                order_by="id",
            )
            instances += page["task_instances"]
            if len(instances) >= page["total_entries"] or not page["task_instances"]:
                return instances

    def result(self, run: str, task: str, map_index: int = -1, dag: str = DAG) -> Any:
        """What a task returned."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        value = self._get(path, map_index=map_index, deserialize=False)["value"]
        return json.loads(value) if isinstance(value, str) else value

    def clear(self, run: str, task_ids: list[str | tuple[str, int]], dag: str = DAG, **options: bool) -> int:
        """Clear tasks, or single mapped instances, so that they run again; how many.

        Args:
            run: id of the run.
            task_ids: a task's id, or its id and map index.
            dag: id of the DAG.
            options: further switches of the API, such as ``include_downstream``.
        """
        ids = [list(task) if isinstance(task, tuple) else task for task in task_ids]
        body = {"dag_run_id": run, "task_ids": ids, "dry_run": False, "only_failed": False, **options}
        answer = self._http.post(f"/api/v2/dags/{dag}/clearTaskInstances", json=body)
        self._check(answer)
        return int(answer.json()["total_entries"])

    def mark(self, run: str, task: str, map_index: int, state: str, dag: str = DAG) -> None:
        """Set a task instance to a state by hand."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/{map_index}"
        self._check(self._http.patch(path, json={"new_state": state}))

    def asked(self, run: str, task: str, dag: str = DAG) -> dict[str, Any]:
        """What a task asks a person."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/-1/hitlDetails"
        found: dict[str, Any] = self._get(path)
        return found

    def answer(self, run: str, task: str, option: str, dag: str = DAG) -> None:
        """Answer what a task asks."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/-1/hitlDetails"
        self._check(self._http.patch(path, json={"chosen_options": [option], "params_input": {}}))

    def _get(self, path: str, **query: Any) -> Any:
        answer = self._http.get(path, params=query)
        self._check(answer)
        return answer.json()

    def _put(self, path: str, name: str, body: dict[str, Any]) -> None:
        answer = self._http.post(path, json=body)
        if answer.status_code == httpx.codes.CONFLICT:
            answer = self._http.patch(f"{path}/{name}", json=body)
        self._check(answer)

    @staticmethod
    def _check(answer: httpx.Response) -> None:
        if answer.is_error:
            raise ServiceError(
                f"Airflow refused {answer.request.method} {answer.request.url.path}: {answer.text}"
            )


def bucket_client(endpoint: str, access_key: str, secret_key: str) -> Any:
    """A boto3 S3 client with short timeouts, independent of the machine's own AWS settings."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
        config=Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"total_max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )


def free_ports() -> Ports:
    """Ports of 127.0.0.1 that nothing listens on, and whose gRPC companions are free as well."""
    random = SystemRandom()
    chosen: dict[str, int] = {}
    while len(chosen) < 1 + len(STORE_COMPONENTS):
        port = random.choice(PORTS)
        if port not in chosen.values() and is_free(port) and is_free(port + GRPC_OFFSET):
            chosen[("airflow", *STORE_COMPONENTS)[len(chosen)]] = port
    return Ports(**chosen)


def is_free(port: int) -> bool:
    """Whether this port of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        # As servers do: a connection that is just closing does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.replace(temporary, path)


def end_processes(processes: list[psutil.Process]) -> None:
    """Terminate, wait, kill."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, processes = psutil.wait_procs(processes, timeout=STOP_SECONDS)


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def main(arguments: list[str]) -> int:
    """``stop``: end the demo's services."""
    if arguments != ["stop"]:
        print("usage: python -m demo.services stop", file=sys.stderr)
        return 2
    state_dir = STATE / "demo"
    if state_dir.is_dir():
        Services(state_dir).stop()
    print("AITP demo: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
