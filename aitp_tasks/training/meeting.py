"""Where the machines of one training meet: what all have to know, and what each has done.

A store of PyTorch's, which the first machine's stage holds and the others' stages and all ranks ask. It
ends with that stage, so that nobody waits for one that is gone. It asks nobody who he is:
who reaches the port can read and change what is said, so it listens on the address that the others were
told and no other where this machine has it. One machine alone meets nobody, and nothing listens.
"""

import contextlib
import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.training import nodes
from aitp_tasks.training.nodes import Node

if TYPE_CHECKING:
    from torch.distributed import Store

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_AGAIN_SECONDS = 0.5
_PART_SECONDS = 30.0
#: Of ranks, apart from the stages' own.
RANKS = "ranks"
#: Says that all are there, and who.
_BEGUN = "begun"


class Meeting:
    """What one machine says and hears; alone, it hears itself."""

    def __init__(self, node: Node | None, store: "Store | None", patience: float) -> None:
        self.node, self._store, self._patience = node, store, patience

    @property
    def first(self) -> bool:
        """Whether this machine decides."""
        return self.node is None or self.node.first

    @property
    def rank(self) -> int:
        """This machine's number."""
        return self.node.rank if self.node else 0

    @property
    def others(self) -> range:
        """The numbers of all machines but the first."""
        return range(1, self.node.count if self.node else 1)

    def tell(self, name: str, value: str) -> None:
        """Say something to all.

        Raises:
            TransientError: the first machine has ended.
        """
        if self._store is not None:
            with self._reached():
                self._store.set(name, value)

    def heard(self, name: str) -> str | None:
        """What was said last under a name; None where nothing was yet.

        Raises:
            TransientError: the first machine has ended.
        """
        if self._store is None:
            return None
        with self._reached():
            return self._store.get(name).decode() if self._store.check([name]) else None

    def ask(self, name: str, what: str) -> str:
        """Wait for what is said under a name.

        Args:
            name: see ``heard``.
            what: is waited for, for the error message.

        Raises:
            TransientError: it is not said in time, or the first machine has ended.
        """
        found: list[str] = []

        def said() -> bool:
            value = self.heard(name)
            found.extend([] if value is None else [value])
            return bool(found)

        if not _within(self._patience, said):
            raise TransientError(
                f"{what} has not been told in finetune.timeout_minutes={self._patience / 60:g}: "
                "see the other machines' logs, then retry on all"
            )
        return found[-1]

    def agree(self, name: str, value: str) -> str:
        """What the first machine says under a name, whatever the others would say.

        Raises:
            TransientError: see ``ask``.
        """
        if self.first:
            self.tell(name, value)
            return value
        return self.ask(name, f"the first machine's {name}")

    def require_same(self, name: str, value: str) -> None:
        """Make sure that all machines have the same.

        Raises:
            InputError: one has another; told on all machines.
            TransientError: see ``ask``.
        """
        if self.node is None:
            return
        self.tell(f"{name}/{self.node.rank}", value)
        said = [self.ask(f"{name}/{rank}", f"machine {rank}'s {name}") for rank in range(self.node.count)]
        differing = [rank for rank, own in enumerate(said) if own != said[0]]
        if differing:
            raise InputError(
                f"{name} of machine {differing[0]} differ from the first machine's ({said[differing[0]]}, "
                f"not {said[0]}): start the same command with the same release and models on all"
            )

    def part(self) -> None:
        """Leave in peace: the first machine, with which the store ends, waits a moment for the others to.

        Raises:
            TransientError: the first machine has ended.
        """
        if not self.first:
            self.tell(_left(self.rank), "")
        elif not _within(_PART_SECONDS, self._are_left):
            log.warning("not all machines have heard the end: see their logs")

    def _are_left(self) -> bool:
        return all(self.heard(_left(rank)) is not None for rank in self.others)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        from torch.distributed import DistError

        assert self.node is not None
        try:
            yield
        except DistError:
            raise TransientError(
                f"the first machine, MASTER_ADDR={self.node.address} port {self.node.port}, has ended or is "
                "not reached any more: see its log, then retry on all"
            ) from None


def join(node: Node | None, minutes: float) -> Meeting:
    """Meet the others; returns when all are there.

    Args:
        node: which machine this is; None where it is the only one.
        minutes: to wait for each thing, from now on.

    Raises:
        TransientError: some have not come in time; on the first machine the message names them.
    """
    patience = minutes * 60
    if node is None:
        return Meeting(None, None, patience)
    if not node.first:
        return Meeting(node, _come(node, patience), patience)
    meeting = Meeting(node, _open(node, patience), patience)
    came: dict[int, str | None] = {}

    def all_there() -> bool:
        # Again each time: one that was started anew while it waited is another now.
        came.update((rank, meeting.heard(_joined(rank))) for rank in meeting.others)
        return None not in came.values()

    if not _within(patience, all_there):
        missing = ", ".join(str(rank) for rank, token in came.items() if token is None)
        raise TransientError(
            f"of finetune.nodes={node.count} machines NODE_RANK={missing} did not come "
            f"to MASTER_ADDR={node.address} port {node.port} in finetune.timeout_minutes={minutes:g}: start "
            "the same command there, then retry"
        )
    meeting.tell(_BEGUN, json.dumps(came))
    log.info("met machines=%d", node.count)
    return meeting


def store(node: Node, patience: timedelta, listener: int | None = None) -> "Store":
    """The store as one who asks it, or as the one who holds it and listens there already."""
    from torch.distributed import TCPStore

    return TCPStore(
        *(node.address, node.port, None, listener is not None, patience),
        wait_for_workers=False,
        master_listen_fd=listener,
    )


def _open(node: Node, patience: float) -> "Store":
    """The store of the first machine, with a listener of its own: PyTorch's would be on all interfaces."""
    address = _listened(node.address)
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.create_server((address, node.port), family=family)
        else:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            listener = socket.create_server(("", node.port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise TransientError(
            f"MASTER_PORT={node.port} of {address or 'this machine'} cannot be listened on "
            f"({error.strerror}): free it, or set another one on all machines, then retry"
        ) from None
    log.info("waits for machines=%d at=%s port=%d", node.count - 1, address or "any address", node.port)
    return store(node, timedelta(seconds=patience), listener.detach())


def _listened(address: str) -> str:
    """The one address to listen on; none where what the others were told is not this machine's own."""
    own = {one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found}
    try:
        meant = [str(info[4][0]) for info in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)]
    except OSError:
        return ""
    for one in meant:
        # A name that means loopback here is another address to the others.
        if one in own and (nodes.is_loopback(address) or not nodes.is_loopback(one)):
            return one
    return ""


def _come(node: Node, patience: float) -> "Store":
    """Come to the first machine and wait until all are there; an earlier try of its may still be there.

    A machine that is started anew before that takes its own place.
    """
    token = uuid.uuid4().hex
    there: Store | None = None
    problem = ""

    def begun() -> bool:
        nonlocal there, problem
        try:
            if there is None:
                problem = "nobody is there: start the same command on the machine with NODE_RANK=0"
                # PyTorch's own tries fill the log.
                socket.create_connection((node.address, node.port), timeout=_AGAIN_SECONDS).close()
                found = store(node, timedelta(seconds=patience))
                if found.check([_BEGUN]):
                    problem = f"another machine has come as NODE_RANK={node.rank} already: give each its own"
                    return False
                problem = "not all machines have come: see the log of the one with NODE_RANK=0"
                found.set(_joined(node.rank), token)
                there = found
            return bool(there.check([_BEGUN]))
        except (OSError, RuntimeError):
            # It has ended, and may begin anew.
            there = None
            return False

    if _within(patience, begun, _AGAIN_SECONDS) and there is not None:
        if json.loads(there.get(_BEGUN))[str(node.rank)] == token:
            return there
        problem = f"another machine has come as NODE_RANK={node.rank}: give each its own"
    raise TransientError(
        f"MASTER_ADDR={node.address} port {node.port}, tried for finetune.timeout_minutes="
        f"{patience / 60:g}: {problem}, then retry"
    )


def _joined(rank: int) -> str:
    return f"joined/{rank}"


def _left(rank: int) -> str:
    return f"left/{rank}"


def _within(seconds: float, done: Callable[[], bool], every: float = _POLL_SECONDS) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
