"""Cases for "which node of how many am I, and where is the master".

Written by somebody who had not read the code, from what was asked for and from public knowledge of torchrun,
DeepSpeed hostfiles, Kubernetes Indexed Jobs, Kubeflow PyTorchJobs and SLURM.

The program, `aitp finetune`, is started once per machine ("node") and starts that machine's ranks itself. The
setting `nodes` says how many machines there are, `processes` how many ranks each of them runs. `expected` is

* `None`: one machine, whatever the environment still holds from another launcher;
* `Placed`: this machine's rank among the nodes, the number of nodes, the master's address and its port;
* `Refused`: an error whose message contains every one of `names`.

A case stands here only where one answer is right; where two can be defended there is none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """One machine of several: its rank among them, their number, and where the master listens."""

    rank: int
    nodes: int
    address: str
    port: int


@dataclass(frozen=True)
class Refused:
    """A clear error: its message contains each of these."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """What one machine sees, and the answer that an experienced operator expects."""

    name: str
    environment: dict[str, str]
    nodes: int
    processes: int
    hostfile: str | None
    hostname: str
    expected: Placed | Refused | None


def _variables(
    name: str,
    environment: dict[str, str],
    expected: Placed | Refused | None,
    *,
    nodes: int = 2,
    processes: int = 8,
    hostname: str = "gpu-b",
) -> Case:
    """A case without a hostfile."""
    return Case(name, environment, nodes, processes, None, hostname, expected)


def _hosts(
    name: str,
    hostfile: str,
    expected: Placed | Refused | None,
    *,
    environment: dict[str, str] | None = None,
    nodes: int = 2,
    processes: int = 8,
    hostname: str = "gpu-b",
) -> Case:
    """A case with a hostfile, and no variables unless some are given."""
    return Case(name, environment or {}, nodes, processes, hostfile, hostname, expected)


def _addressed(**others: str) -> dict[str, str]:
    """A master that is in order, and the variables that the case is about."""
    return {"MASTER_ADDR": "10.0.0.1", **others}


TWO_HOSTS = "gpu-a slots=8\ngpu-b slots=8\n"

ONE_MACHINE: tuple[Case, ...] = (
    _variables("one machine, nothing set", {}, None, nodes=1),
    _variables(
        "one machine, the leftovers of a torchrun worker",
        {
            "RANK": "3",
            "LOCAL_RANK": "3",
            "WORLD_SIZE": "8",
            "LOCAL_WORLD_SIZE": "8",
            "GROUP_RANK": "0",
            "GROUP_WORLD_SIZE": "1",
            "ROLE_RANK": "3",
            "ROLE_WORLD_SIZE": "8",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
        },
        None,
        nodes=1,
    ),
    _variables(
        "one machine, a leftover master elsewhere",
        {"MASTER_ADDR": "10.9.8.7", "MASTER_PORT": "29500"},
        None,
        nodes=1,
    ),
    _variables(
        "one machine, leftover RANK and WORLD_SIZE of a larger job",
        {"RANK": "13", "WORLD_SIZE": "16", "LOCAL_RANK": "5"},
        None,
        nodes=1,
    ),
    _variables(
        "one machine, leftovers that are no numbers",
        {"RANK": "abc", "WORLD_SIZE": "many", "LOCAL_RANK": "-"},
        None,
        nodes=1,
    ),
    _variables(
        "one machine, MASTER_PORT of a Kubernetes service called master",
        {"MASTER_PORT": "tcp://10.96.0.12:29500", "MASTER_SERVICE_HOST": "10.96.0.12"},
        None,
        nodes=1,
    ),
    _variables(
        "one machine, a pod of an indexed job of independent runs",
        {"JOB_COMPLETION_INDEX": "3"},
        None,
        nodes=1,
        hostname="sweep-3",
    ),
    _variables(
        "one machine, a PyTorchJob of one replica",
        {
            "PET_NNODES": "1",
            "PET_NODE_RANK": "0",
            "PET_MASTER_ADDR": "tune-master-0",
            "PET_MASTER_PORT": "23456",
            "MASTER_ADDR": "tune-master-0",
            "MASTER_PORT": "23456",
            "RANK": "0",
            "WORLD_SIZE": "1",
        },
        None,
        nodes=1,
        hostname="tune-master-0",
    ),
    _variables(
        "one machine, a SLURM job of one node",
        {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
        None,
        nodes=1,
    ),
    _hosts("one machine, a hostfile of this one host", "gpu-b slots=8\n", None, nodes=1),
)

PLACED_BY_VARIABLES: tuple[Case, ...] = (
    _variables(
        "torchrun style, first node",
        {"MASTER_ADDR": "gpu-a", "MASTER_PORT": "29400", "NNODES": "2", "NODE_RANK": "0"},
        Placed(0, 2, "gpu-a", 29400),
        hostname="gpu-a",
    ),
    _variables(
        "torchrun style, second node",
        {"MASTER_ADDR": "gpu-a", "MASTER_PORT": "29400", "NNODES": "2", "NODE_RANK": "1"},
        Placed(1, 2, "gpu-a", 29400),
    ),
    _variables("default port", _addressed(NODE_RANK="1", NNODES="2"), Placed(1, 2, "10.0.0.1", 29500)),
    _variables("NNODES need not be set", _addressed(NODE_RANK="0"), Placed(0, 2, "10.0.0.1", 29500)),
    _variables("last of 64", _addressed(NODE_RANK="63"), Placed(63, 64, "10.0.0.1", 29500), nodes=64),
    _variables(
        "PET_ variables alone",
        {
            "PET_MASTER_ADDR": "tune-master-0",
            "PET_MASTER_PORT": "23456",
            "PET_NNODES": "2",
            "PET_NODE_RANK": "1",
        },
        Placed(1, 2, "tune-master-0", 23456),
        hostname="tune-worker-0",
    ),
    _variables(
        "a PyTorchJob's worker, whose WORLD_SIZE counts pods",
        {
            "PET_MASTER_ADDR": "tune-master-0",
            "PET_MASTER_PORT": "23456",
            "PET_NNODES": "2",
            "PET_NODE_RANK": "1",
            "MASTER_ADDR": "tune-master-0",
            "MASTER_PORT": "23456",
            "RANK": "1",
            "WORLD_SIZE": "2",
            "PYTHONUNBUFFERED": "1",
        },
        Placed(1, 2, "tune-master-0", 23456),
        hostname="tune-worker-0",
    ),
    _variables(
        "a PyTorchJob's worker, whose WORLD_SIZE counts ranks",
        {
            "PET_MASTER_ADDR": "tune-master-0",
            "PET_MASTER_PORT": "23456",
            "PET_NNODES": "4",
            "PET_NODE_RANK": "3",
            "PET_NPROC_PER_NODE": "8",
            "MASTER_ADDR": "tune-master-0",
            "MASTER_PORT": "23456",
            "RANK": "3",
            "WORLD_SIZE": "32",
        },
        Placed(3, 4, "tune-master-0", 23456),
        nodes=4,
        hostname="tune-worker-2",
    ),
    _variables("GROUP_RANK", _addressed(GROUP_RANK="1"), Placed(1, 2, "10.0.0.1", 29500)),
    _variables(
        "an indexed job's third pod",
        {"JOB_COMPLETION_INDEX": "2", "MASTER_ADDR": "train-0.train", "MASTER_PORT": "3389"},
        Placed(2, 3, "train-0.train", 3389),
        nodes=3,
        hostname="train-2",
    ),
    _variables(
        "NODE_RANK set from the pod's index",
        {"JOB_COMPLETION_INDEX": "1", "NODE_RANK": "1", "MASTER_ADDR": "train-0.train", "NNODES": "2"},
        Placed(1, 2, "train-0.train", 29500),
        hostname="train-1",
    ),
    _variables(
        "a leftover RANK is not the node's rank",
        _addressed(NODE_RANK="1", RANK="0"),
        Placed(1, 2, "10.0.0.1", 29500),
    ),
    _variables(
        "a SLURM job whose script sets the usual variables",
        {
            "SLURM_NNODES": "2",
            "SLURM_NODEID": "1",
            "SLURM_PROCID": "1",
            "SLURM_LOCALID": "0",
            "SLURM_NTASKS": "2",
            "SLURM_JOB_NODELIST": "gpu-[a-b]",
            "MASTER_ADDR": "gpu-a",
            "MASTER_PORT": "29501",
            "NODE_RANK": "1",
        },
        Placed(1, 2, "gpu-a", 29501),
    ),
    _variables(
        "a master by IPv6 address",
        {"MASTER_ADDR": "2001:db8::10", "MASTER_PORT": "29600", "NODE_RANK": "1"},
        Placed(1, 2, "2001:db8::10", 29600),
    ),
    _variables(
        "empty variables count as unset: NNODES and the port",
        _addressed(NODE_RANK="1", NNODES="", MASTER_PORT=""),
        Placed(1, 2, "10.0.0.1", 29500),
    ),
    _variables(
        "empty variables count as unset: the synonym beside them holds",
        {"NODE_RANK": "", "PET_NODE_RANK": "1", "MASTER_ADDR": "", "PET_MASTER_ADDR": "tune-master-0"},
        Placed(1, 2, "tune-master-0", 29500),
    ),
)

REFUSED_VARIABLES: tuple[Case, ...] = (
    _variables("several machines, nothing set", {}, Refused(("MASTER_ADDR", "NODE_RANK"))),
    _variables("no rank", _addressed(NNODES="2"), Refused(("NODE_RANK",))),
    _variables("no master", {"NODE_RANK": "1", "NNODES": "2"}, Refused(("MASTER_ADDR",))),
    _variables("a rank of blanks", _addressed(NODE_RANK="   "), Refused(("NODE_RANK",))),
    _variables("a rank counted from one", _addressed(NODE_RANK="2"), Refused(("NODE_RANK", "2"))),
    _variables("a negative rank", _addressed(NODE_RANK="-1"), Refused(("NODE_RANK", "-1"))),
    _variables("a rank with a fraction", _addressed(NODE_RANK="1.0"), Refused(("NODE_RANK", "1.0"))),
    _variables("two ranks", _addressed(NODE_RANK="0 1"), Refused(("NODE_RANK", "0 1"))),
    _variables(
        "a rank with an underscore", _addressed(NODE_RANK="1_0"), Refused(("NODE_RANK", "1_0")), nodes=16
    ),
    _variables(
        "a rank that was never expanded",
        _addressed(NODE_RANK="$(JOB_COMPLETION_INDEX)"),
        Refused(("NODE_RANK", "$(JOB_COMPLETION_INDEX)")),
    ),
    _variables(
        "PET_NODE_RANK out of range",
        {"PET_MASTER_ADDR": "tune-master-0", "PET_NODE_RANK": "5"},
        Refused(("PET_NODE_RANK", "5")),
        nodes=4,
    ),
    _variables(
        "more completions than nodes",
        {"JOB_COMPLETION_INDEX": "7", "MASTER_ADDR": "train-0.train"},
        Refused(("JOB_COMPLETION_INDEX", "7")),
        nodes=4,
        hostname="train-7",
    ),
    _variables(
        "NODE_RANK against the index",
        {"NODE_RANK": "0", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "train-0.train"},
        Refused(("NODE_RANK", "0", "JOB_COMPLETION_INDEX", "1")),
        hostname="train-1",
    ),
    _variables(
        "NODE_RANK against PET_NODE_RANK",
        _addressed(NODE_RANK="3", PET_NODE_RANK="2"),
        Refused(("NODE_RANK", "3", "PET_NODE_RANK", "2")),
        nodes=4,
    ),
    _variables(
        "MASTER_ADDR against PET_MASTER_ADDR",
        {"MASTER_ADDR": "gpu-a", "PET_MASTER_ADDR": "tune-master-0", "NODE_RANK": "1"},
        Refused(("MASTER_ADDR", "gpu-a", "PET_MASTER_ADDR", "tune-master-0")),
    ),
    _variables(
        "MASTER_PORT against PET_MASTER_PORT",
        _addressed(NODE_RANK="1", MASTER_PORT="29501", PET_MASTER_PORT="23456"),
        Refused(("MASTER_PORT", "29501", "PET_MASTER_PORT", "23456")),
    ),
    _variables(
        "NNODES against the setting", _addressed(NODE_RANK="1", NNODES="4"), Refused(("NNODES", "4", "nodes"))
    ),
    _variables(
        "NNODES right, PET_NNODES wrong",
        _addressed(NODE_RANK="1", NNODES="2", PET_NNODES="3"),
        Refused(("PET_NNODES", "3")),
    ),
    _variables(
        "elastic NNODES", _addressed(NODE_RANK="1", NNODES="1:4"), Refused(("NNODES", "1:4")), nodes=4
    ),
    _variables(
        "elastic PET_NNODES",
        {"PET_MASTER_ADDR": "tune-master-0", "PET_NODE_RANK": "1", "PET_NNODES": "1:4"},
        Refused(("PET_NNODES", "1:4")),
        nodes=4,
    ),
    _variables("NNODES in words", _addressed(NODE_RANK="1", NNODES="two"), Refused(("NNODES", "two"))),
    _variables("port zero", _addressed(NODE_RANK="1", MASTER_PORT="0"), Refused(("MASTER_PORT", "0"))),
    _variables(
        "port too high", _addressed(NODE_RANK="1", MASTER_PORT="65536"), Refused(("MASTER_PORT", "65536"))
    ),
    _variables(
        "port in words", _addressed(NODE_RANK="1", MASTER_PORT="ssh"), Refused(("MASTER_PORT", "ssh"))
    ),
    _variables(
        "several machines, MASTER_PORT of a Kubernetes service called master",
        {
            "MASTER_ADDR": "train-0.train",
            "JOB_COMPLETION_INDEX": "1",
            "MASTER_PORT": "tcp://10.96.0.12:29500",
        },
        Refused(("MASTER_PORT", "tcp://10.96.0.12:29500")),
        hostname="train-1",
    ),
    _variables(
        "two masters",
        {"MASTER_ADDR": "gpu-a gpu-b", "NODE_RANK": "1"},
        Refused(("MASTER_ADDR", "gpu-a gpu-b")),
    ),
)

PLACED_BY_HOSTFILE: tuple[Case, ...] = (
    _hosts("hostfile, first host", TWO_HOSTS, Placed(0, 2, "gpu-a", 29500), hostname="gpu-a"),
    _hosts("hostfile, second host", TWO_HOSTS, Placed(1, 2, "gpu-a", 29500)),
    _hosts(
        "hostfile, order of the file and not of the names",
        "gpu-c slots=8\ngpu-b slots=8\ngpu-a slots=8\n",
        Placed(2, 3, "gpu-c", 29500),
        nodes=3,
        hostname="gpu-a",
    ),
    _hosts(
        "hostfile, comments and blank lines",
        "# rack 7\n\ngpu-a slots=8\n   # gpu-x is away\n#gpu-x slots=8\n\n   \ngpu-b slots=8  # new\n\n",
        Placed(1, 2, "gpu-a", 29500),
    ),
    _hosts(
        "hostfile, tabs, leading and trailing spaces",
        "\tgpu-a\tslots=8\t \n  gpu-b \t  slots=8   \n",
        Placed(1, 2, "gpu-a", 29500),
    ),
    _hosts("hostfile, CRLF and no slots", "gpu-a\r\ngpu-b\r\n", Placed(1, 2, "gpu-a", 29500)),
    _hosts("hostfile, no slots, no last newline", "gpu-a\ngpu-b", Placed(1, 2, "gpu-a", 29500)),
    _hosts(
        "hostfile by short name, this host fully qualified",
        TWO_HOSTS,
        Placed(1, 2, "gpu-a", 29500),
        hostname="gpu-b.cluster.example",
    ),
    _hosts(
        "hostfile fully qualified, this host by short name",
        "gpu-a.cluster.example slots=8\ngpu-b.cluster.example slots=8\n",
        Placed(1, 2, "gpu-a.cluster.example", 29500),
    ),
    _hosts(
        "hostfile, the same short name in two domains",
        "gpu-1.east.example slots=8\ngpu-1.west.example slots=8\n",
        Placed(1, 2, "gpu-1.east.example", 29500),
        hostname="gpu-1.west.example",
    ),
    _hosts(
        "hostfile, one name begins another",
        "gpu-10 slots=8\ngpu-1 slots=8\n",
        Placed(1, 2, "gpu-10", 29500),
        hostname="gpu-1",
    ),
    _hosts(
        "hostfile by IPv4 address",
        "10.0.0.1 slots=8\n10.0.0.2 slots=8\n",
        Placed(1, 2, "10.0.0.1", 29500),
        hostname="10.0.0.2",
    ),
    _hosts(
        "hostfile by IPv4 address, the rank by its variable",
        "10.0.0.1 slots=8\n10.0.0.2 slots=8\n",
        Placed(1, 2, "10.0.0.1", 29500),
        environment={"NODE_RANK": "1"},
    ),
    _hosts(
        "hostfile by IPv6 address",
        "2001:db8::1 slots=8\n2001:db8::2 slots=8\n",
        Placed(1, 2, "2001:db8::1", 29500),
        hostname="2001:db8::2",
    ),
    _hosts(
        "hostfile, and the port by its variable",
        TWO_HOSTS,
        Placed(1, 2, "gpu-a", 29612),
        environment={"MASTER_PORT": "29612"},
    ),
    _hosts(
        "hostfile, and variables that agree with it",
        TWO_HOSTS,
        Placed(1, 2, "gpu-a", 29500),
        environment={"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "gpu-a", "MASTER_PORT": "29500"},
    ),
    _hosts(
        "hostfile in an indexed job",
        "train-0.train\ntrain-1.train\n",
        Placed(1, 2, "train-0.train", 29500),
        environment={"JOB_COMPLETION_INDEX": "1"},
        hostname="train-1",
    ),
)

REFUSED_HOSTFILES: tuple[Case, ...] = (
    _hosts("hostfile without this host", TWO_HOSTS, Refused(("gpu-z",)), hostname="gpu-z"),
    _hosts(
        "hostfile with this host's name in another domain",
        "gpu-a.east.example slots=8\ngpu-b.east.example slots=8\n",
        Refused(("gpu-b.west.example",)),
        hostname="gpu-b.west.example",
    ),
    _hosts(
        "hostfile with two hosts of this short name",
        "gpu-1.east.example slots=8\ngpu-1.west.example slots=8\n",
        Refused(("gpu-1",)),
        hostname="gpu-1",
    ),
    _hosts(
        "hostfile by IPv4 address without this one",
        "10.0.0.1 slots=8\n10.0.0.2 slots=8\n",
        Refused(("10.0.0.9",)),
        hostname="10.0.0.9",
    ),
    _hosts(
        "hostfile with a host twice", "gpu-a slots=8\ngpu-a slots=8\n", Refused(("gpu-a",)), hostname="gpu-a"
    ),
    _hosts("hostfile with comments only", "# nobody yet\n\n", Refused(("hostfile",))),
    _hosts("hostfile of one host for two machines", "gpu-b slots=8\n", Refused(("hostfile", "nodes"))),
    _hosts(
        "hostfile of three hosts for two machines, on the third",
        "gpu-a slots=8\ngpu-b slots=8\ngpu-c slots=8\n",
        Refused(("hostfile",)),
        hostname="gpu-c",
    ),
    _hosts("hostfile against NNODES", TWO_HOSTS, Refused(("NNODES", "3")), environment={"NNODES": "3"}),
    _hosts(
        "hostfile against NODE_RANK",
        TWO_HOSTS,
        Refused(("NODE_RANK", "1", "gpu-a")),
        environment={"NODE_RANK": "1"},
        hostname="gpu-a",
    ),
    _hosts(
        "hostfile with too few slots here", "gpu-a slots=8\ngpu-b slots=4\n", Refused(("gpu-b", "slots", "4"))
    ),
    _hosts(
        "hostfile with too few slots on the other host",
        "gpu-a slots=8\ngpu-b slots=4\n",
        Refused(("gpu-b", "slots", "4")),
        hostname="gpu-a",
    ),
    _hosts(
        "hostfile with slots in words",
        "gpu-a slots=8\ngpu-b slots=eight\n",
        Refused(("gpu-b", "slots=eight")),
    ),
)

CASES: tuple[Case, ...] = (
    *ONE_MACHINE,
    *PLACED_BY_VARIABLES,
    *REFUSED_VARIABLES,
    *PLACED_BY_HOSTFILE,
    *REFUSED_HOSTFILES,
)
