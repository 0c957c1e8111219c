"""The services of docker-compose.yaml as processes of this machine: what compose would start is tried.

Of each service the command, the environment, the volumes, the order and the health check are
read from the file. What compose's containers would give is put in its place: a service's name and
ports become 127.0.0.1 and free ports, a volume becomes a folder, and the images' programs those of
this checkout, of .aitp/bin and of Debian. What the image of Postgres does before its command is
done here as well, since Debian's has no entry point for it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from demo.services import HOST, PORTS, REPOSITORY, STATE, end_processes, is_free

BASE, GPU = REPOSITORY / "docker-compose.yaml", REPOSITORY / "docker-compose.gpu.yaml"
#: Of the processes of one topology.
OWNER = "AITP_TOPOLOGY"
#: Programs of the images, and where they are here.
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PROGRAMS = (REPOSITORY / ".venv/airflow/bin", STATE / "bin", *POSTGRES[-1:])
#: Components of the store whose gRPC port lies so far above.
GRPC_OFFSET = 10_000
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\})")


def read(*files: Path) -> dict[str, Any]:
    """The files as compose joins them: mappings key by key, all else by the later file."""
    joined: dict[str, Any] = {}
    for path in files:
        joined = _on_top(joined, yaml.safe_load(path.read_text()))
    return joined


def _on_top(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _on_top(below.get(key), value) for key, value in above.items()}}
    return above


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the file with its variables filled in.

    Raises:
        KeyError: one that must be set is not.
    """
    if isinstance(value, dict):
        return {key: interpolated(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, variables) for one in value]
    return _VARIABLE.sub(lambda found: _filled(found, variables), value) if isinstance(value, str) else value


def _filled(found: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, name, kind, text = found.groups()
    if dollar:
        return "$"
    if variables.get(name):
        return variables[name]
    if kind == ":-":
        return str(text)
    raise KeyError(f"{name} is not set: {text}")


class Topology:
    """The services, in one folder.

    Args:
        folder: of all that they write.
        variables: as ``.env`` has them.
        files: of compose.
        binds: folders of the checkout that services see, and what they see instead.
        environment: further variables of all of Airflow's services.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        files: tuple[Path, ...] = (BASE, GPU),
        binds: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.binds = dict(binds or {})
        self.extra = dict(environment or {})
        self.logs.mkdir(parents=True)
        content = read(*files)
        self.ports = {
            (name, int(port.rpartition(":")[2])): _port()
            for name, service in content["services"].items()
            for port in [*service.get("expose", ()), *service.get("ports", ())]
        }
        published = {"AITP_PORT": self.port("api-server", 8080), "AITP_STORE_PORT": self.port("store", 8333)}
        filled = {**variables, **{name: str(port) for name, port in published.items()}}
        self.services: dict[str, Any] = interpolated(content["services"], filled)
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def port(self, service: str, inside: int) -> int:
        """The port of this machine that stands for one of a service."""
        return self.ports[service, inside]

    def start(self, *names: str) -> None:
        """Start services, and before them all that they depend on, as compose does."""
        for name in names:
            if name in self.started:
                continue
            for other, how in self.services[name].get("depends_on", {}).items():
                self.start(other)
                if how["condition"] == "service_healthy":
                    self.wait_until_healthy(other)
                else:
                    assert self.started[other].wait(timeout=600) == 0, self.log(other)
            self.spawn(name)

    def spawn(self, name: str, instance: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start one service's process in a group of its own.

        Args:
            name: of the service.
            instance: what it is called here, where it is there more than once.
            environment: further variables.
        """
        service = self.services[name]
        if name == "postgres":
            self._initdb(service)
        command = [*service.get("entrypoint", ()), *service["command"]]
        process = self._run(name, command, instance or name, environment)
        self.started[instance or name] = process
        return process

    def wait_until_healthy(self, name: str, seconds: float = 600) -> None:
        """Ask by the service's own health check until it is well."""
        deadline = time.monotonic() + seconds
        while not self.healthy(name):
            assert self.started[name].poll() is None, f"{name} has ended: {self.log(name)}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {self.log(name)}"
            time.sleep(1)

    def healthy(self, name: str) -> bool:
        """What the service's health check says."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        return self._run(name, command, f"{name}-health", {}).wait(timeout=120) == 0

    def log(self, name: str) -> str:
        """The end of what it has written."""
        return (self.logs / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """End all processes: those of Airflow first, what they need last."""
        last = ("postgres", "redis-server", "weed")
        found = list(self.processes())
        end_processes([process for process in found if _name(process) not in last])
        for process in self.processes():
            # Of Postgres: end now, without waiting for sessions. Its helpers may have ended with it.
            if _name(process) == "postgres":
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
        end_processes(list(self.processes()))

    def processes(self) -> Iterator[psutil.Process]:
        """Every living process that was started here, directly or not."""
        # Redis and Postgres write their titles over their environment.
        below = {one for process in self.started.values() for one in _tree(process.pid)}
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process in below or process.environ().get(OWNER) == str(self.folder):
                    yield process
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue

    def environment(self, name: str) -> dict[str, str]:
        """The variables of one service, here."""
        service = self.services[name]
        given = {key: self._here(name, str(value)) for key, value in service.get("environment", {}).items()}
        of_airflow = "aitp-" in service["image"]
        home = {"AIRFLOW_HOME": self._here(name, "/opt/airflow"), **self.extra} if of_airflow else {}
        if name == "postgres":
            home = {"PGDATA": str(self.volume("postgres"))}
        paths = [*map(str, PROGRAMS), "/usr/local/bin:/usr/bin:/bin"]
        # Otherwise a process that renames itself overwrites its environment, and with it its owner.
        own = {OWNER: str(self.folder), "SPT_NOENV": "1", "PATH": ":".join(paths), "LANG": "C.UTF-8"}
        kept = {key: os.environ[key] for key in ("HOME", "OMP_NUM_THREADS") if key in os.environ}
        return {**kept, **own, **given, **home}

    def volume(self, name: str) -> Path:
        """The folder of a volume."""
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _run(
        self, name: str, command: list[str], log: str, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        here = [self._here(name, word) for word in command]
        if name == "postgres" and os.geteuid() == 0:
            # Its programs refuse root.
            here = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *here]
        variables = {**self.environment(name), **environment}
        program = shutil.which(here[0], path=variables["PATH"])
        assert program, f"{here[0]} is missing"
        with (self.logs / f"{log}.log").open("ab") as file:
            return subprocess.Popen(
                [program, *here[1:]],
                cwd=self.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _here(self, name: str, text: str) -> str:
        """A word of a service's command or environment, as it is on this machine."""
        for source, target in self._volumes(name):
            text = re.sub(rf"{re.escape(target)}(?=/|$|\\| )", str(source), text)
        text = text.replace("/opt/aitp", str(REPOSITORY))
        for (service, inside), port in self.ports.items():
            text = re.sub(rf"\b{service}:{inside}\b", f"{HOST}:{port}", text)
            if service == name:
                text = re.sub(rf"(?<=127\.0\.0\.1:){inside}\b", str(port), text)
                text = re.sub(rf"((?:port|-p)(?:=| )){inside}\b", rf"\g<1>{port}", text)
                text = str(port) if text == str(inside) else text
        return text.replace("0.0.0.0", HOST)

    def _volumes(self, name: str) -> list[tuple[Path, str]]:
        """Each volume's folder here, and where the service sees it: the longest first."""
        found = []
        for volume in self.services[name].get("volumes", ()):
            source, target, *_ = volume.split(":")
            own = (
                self.binds.get(source, REPOSITORY / source) if source.startswith(".") else self.volume(source)
            )
            found.append((own, target))
        return sorted(found, key=lambda pair: -len(pair[1]))

    def _initdb(self, service: dict[str, Any]) -> None:
        """What the image of Postgres does before its command, in its volume."""
        given = service["environment"]
        data = self.volume("postgres")
        if os.geteuid() == 0:
            shutil.chown(data, "postgres")
        if (data / "PG_VERSION").exists():
            return
        password = data.parent / "password"
        password.write_text(given["POSTGRES_PASSWORD"])
        password.chmod(0o444)
        options = [f"--username={given['POSTGRES_USER']}", f"--pwfile={password}", "--auth-local=trust"]
        command = ["initdb", f"--pgdata={data}", *options, *given["POSTGRES_INITDB_ARGS"].split()]
        assert self._run("postgres", command, "initdb", {}).wait(timeout=120) == 0, self.log("initdb")
        password.unlink()
        create = f"CREATE DATABASE {given['POSTGRES_DB']};"
        made = f"echo '{create}' | postgres --single -D {data} postgres"
        assert self._run("postgres", ["sh", "-c", made], "initdb", {}).wait(timeout=60) == 0
        with (data / "postgresql.conf").open("a") as file:
            # As in the image, which listens on all addresses of its container.
            file.write(f"listen_addresses = '{HOST}'\nport = {self.port('postgres', 5432)}\n")
            file.write(f"unix_socket_directories = '{data}'\n")


def _port() -> int:
    """A port of 127.0.0.1 that is free, and the one that the store's gRPC would have."""
    from random import SystemRandom

    while True:
        port = SystemRandom().choice(PORTS)
        if port not in _TAKEN and is_free(port) and is_free(port + GRPC_OFFSET):
            _TAKEN.add(port)
            return port


_TAKEN: set[int] = set()


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; none once it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""
