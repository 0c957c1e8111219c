"""Which machine this is of those that train together, and where they meet.

``finetune.nodes`` says how many there are. Which one this is, and where the first one is met, say the
variables that launchers and batch systems set, or a hostfile in DeepSpeed's form. Nothing else reads
them: with one machine they are another launcher's, and no rank sees them (see ``without``).
"""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError

#: Names of one thing: torchrun's arguments as variables, its workers' variables, a Kubernetes Indexed Job's.
_COUNT = ("NNODES", "PET_NNODES")
_RANK = ("NODE_RANK", "PET_NODE_RANK", "GROUP_RANK", "JOB_COMPLETION_INDEX")
_ADDRESS = ("MASTER_ADDR", "PET_MASTER_ADDR")
_PORT = ("MASTER_PORT", "PET_MASTER_PORT")
#: PyTorch's own.
_USUAL_PORT, _LARGEST_PORT = 29500, 65535
#: What launchers leave for ranks of theirs, beside the above.
_LEFT = {
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "LOCAL_WORLD_SIZE", "CROSS_RANK", "CROSS_SIZE"),
    *("GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "NPROC_PER_NODE"),
    *("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
_LEFT_BY = ("PET_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_", "OMPI_", "PMI_", "PMIX_", "MV2_")
#: A hostfile has a line a machine.
_LARGEST_BYTES = 1_000_000
_NUMBER = re.compile(r"[0-9]{1,9}")
_LINE = re.compile(r"(?P<host>\S+)(?:\s+slots=(?P<slots>[0-9]{1,9}))?")


class Node(BaseModel):
    """One machine of several that train together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    count: int
    #: Of the first machine, as the others know it.
    address: str
    port: int

    @property
    def first(self) -> bool:
        """Whether the others meet here."""
        return self.rank == 0


def here(
    settings: Finetune, environment: Mapping[str, str] = os.environ, names: Sequence[str] | None = None
) -> Node | None:
    """This machine among those that train together; None where there is one only.

    Args:
        settings: of the training.
        environment: with the variables.
        names: this machine's names and addresses, of which a hostfile has one; by default, its own.

    Raises:
        InputError: what is said is missing, makes no sense or disagrees; the message has the variable, its
            value and the remedy.
    """
    said = {name: value for name, value in environment.items() if value}
    _require_count(settings, said)
    hosts = _hosts(settings) if settings.hostfile is not None else []
    if settings.nodes == 1:
        if hosts:
            _place(hosts, _own(names), settings)
        return None
    rank = _rank(settings, said, hosts, names)
    return Node(rank=rank, count=settings.nodes, address=_address(said, hosts, settings), port=_port(said))


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what launchers and batch systems have left in it for ranks of theirs."""
    left = _LEFT.union(_COUNT, _RANK, _ADDRESS, _PORT)
    return {
        name: value
        for name, value in environment.items()
        if name not in left and not name.startswith(_LEFT_BY)
    }


def interface(address: str) -> str | None:
    """The network interface through which an address is reached, by name.

    None where that cannot be told: it cannot be reached or has no address yet, or a name means this very
    machine, whose other interfaces the others use.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Sends nothing: the system only chooses the way.
            probe.connect(place)
            own = ipaddress.ip_address(probe.getsockname()[0])
    except OSError:
        return None
    if own.is_loopback and not is_loopback(address):
        return None
    for name, found in psutil.net_if_addrs().items():
        if any(_ip(one.address) == own for one in found):
            return name
    return None


def is_loopback(address: str) -> bool:
    """Whether an address can mean this machine only, whoever reads it."""
    ip = _ip(address)
    return ip.is_loopback if ip is not None else address == "localhost"


def _require_count(settings: Finetune, said: Mapping[str, str]) -> None:
    for name in _COUNT:
        value = said.get(name, "")
        if not value:
            continue
        if not _NUMBER.fullmatch(value):
            raise InputError(
                f"{name}={value} is no number of machines (it may not change while they train): "
                f"set it to finetune.nodes={settings.nodes}, or unset it"
            )
        if int(value) != settings.nodes:
            raise InputError(
                f"{name}={value}, but finetune.nodes={settings.nodes}: the run was planned for as many "
                f"machines; unset {name}, start as many, or set finetune.nodes={value} and plan again"
            )


def _rank(
    settings: Finetune, said: Mapping[str, str], hosts: Sequence[str], names: Sequence[str] | None
) -> int:
    name, value = _agreed(said, _RANK)
    rank = None if name is None else _rank_of(name, value, settings)
    if hosts:
        own = _own(names)
        place = _place(hosts, own, settings, required=rank is None)
        if rank is not None and place is not None and place != rank:
            raise InputError(
                f"{name}={value}, but finetune.hostfile={settings.hostfile} has {hosts[place]}, which is "
                f"this machine, as number {place}: unset {name}, or correct one of them"
            )
        rank = place if rank is None else rank
    if rank is None:
        raise InputError(
            f"finetune.nodes={settings.nodes}, but nothing says which of them this machine is: start the "
            f"same command on each, with NODE_RANK=0 to {settings.nodes - 1} and the first one's address as "
            "MASTER_ADDR, or name a finetune.hostfile"
        )
    return rank


def _rank_of(name: str, value: str, settings: Finetune) -> int:
    if not _NUMBER.fullmatch(value) or int(value) >= settings.nodes:
        raise InputError(
            f"{name}={value} is none of finetune.nodes={settings.nodes} machines: number them from 0 to "
            f"{settings.nodes - 1}"
        )
    return int(value)


def _address(said: Mapping[str, str], hosts: Sequence[str], settings: Finetune) -> str:
    name, value = _agreed(said, _ADDRESS)
    if name is None:
        if hosts:
            return hosts[0]
        raise InputError(
            f"finetune.nodes={settings.nodes}, but MASTER_ADDR is not set: set it to the address of the "
            "machine with NODE_RANK=0"
        )
    if any(character.isspace() or character in "/@" for character in value):
        raise InputError(f"{name}={value} is no address: set it to that of the machine with NODE_RANK=0")
    if hosts and value != hosts[0]:
        raise InputError(
            f"{name}={value}, but the first host of finetune.hostfile={settings.hostfile} is {hosts[0]}: "
            f"unset {name}, or correct one of them"
        )
    return value


def _port(said: Mapping[str, str]) -> int:
    name, value = _agreed(said, _PORT)
    if name is None:
        return _USUAL_PORT
    if not _NUMBER.fullmatch(value) or not 1 <= int(value) <= _LARGEST_PORT:
        raise InputError(
            f"{name}={value} is no port: set it to one from 1 to {_LARGEST_PORT} that is free on the machine "
            "with NODE_RANK=0"
        )
    return int(value)


def _agreed(said: Mapping[str, str], names: Sequence[str]) -> tuple[str | None, str]:
    """The first of some variables that is set, and its value, which the others have to share."""
    found = [(name, said[name]) for name in names if name in said]
    for name, value in found[1:]:
        if value != found[0][1]:
            raise InputError(f"{found[0][0]}={found[0][1]}, but {name}={value}: unset one of them")
    return found[0] if found else (None, "")


def _hosts(settings: Finetune) -> list[str]:
    """The machines of the hostfile, in its order."""
    path = Path(str(settings.hostfile))
    where = f"finetune.hostfile={path}"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}): name a hostfile") from None
    if len(data) > _LARGEST_BYTES or b"\0" in data:
        raise InputError(f"{where} is no hostfile: name one, with a line 'HOST slots=N' for each machine")
    hosts: list[str] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if text := line.partition("#")[0].strip():
            hosts.append(_host(text, f"{where}, line {number}", settings))
            if hosts[-1] in hosts[:-1]:
                raise InputError(f"{where}, line {number}: {hosts[-1]} is there twice: take one out")
    if len(hosts) != settings.nodes:
        raise InputError(
            f"{where} names {len(hosts)} machines, but finetune.nodes={settings.nodes}: correct one of them"
        )
    return hosts


def _host(text: str, where: str, settings: Finetune) -> str:
    line = _LINE.fullmatch(text)
    if line is None:
        raise InputError(f"{where}: {text!r} is not of the form 'HOST slots=N': correct it")
    slots = line["slots"]
    if slots is not None and int(slots) != settings.processes:
        raise InputError(
            f"{where}: {line['host']} has slots={slots}, but finetune.processes={settings.processes} ranks "
            "are started on each machine: correct one of them"
        )
    return line["host"]


def _place(hosts: Sequence[str], own: Sequence[str], settings: Finetune, required: bool = True) -> int | None:
    """Which of the hosts this machine is; a name with its domain is known by the name alone too."""
    for same in (_is, _is_shortly):
        places = [place for place, host in enumerate(hosts) if any(same(host, name) for name in own)]
        if len(places) == 1:
            return places[0]
        if places:
            break
    if not required:
        return None
    problem = "is none of its hosts" if not places else f"is {len(places)} of its hosts"
    raise InputError(
        f"finetune.hostfile={settings.hostfile}: this machine ({', '.join(own)}) {problem}: "
        "name it there, or set NODE_RANK"
    )


def _is(host: str, name: str) -> bool:
    ip = _ip(host)
    return ip == _ip(name) if ip is not None else host.lower() == name.lower()


def _is_shortly(host: str, name: str) -> bool:
    """Whether one of two names has no domain, and is the other without."""
    if _ip(host) is not None or _ip(name) is not None or ("." in host) == ("." in name):
        return False
    return host.partition(".")[0].lower() == name.partition(".")[0].lower()


def _own(names: Sequence[str] | None) -> list[str]:
    """This machine's names and addresses."""
    if names is not None:
        return list(names)
    found = [socket.gethostname(), socket.getfqdn()]
    for addresses in psutil.net_if_addrs().values():
        found += [one.address.partition("%")[0] for one in addresses if _ip(one.address) is not None]
    return list(dict.fromkeys(found))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text.partition("%")[0])
    return None
