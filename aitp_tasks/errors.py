"""The exception tree, and the exit codes that derive from it.

An exit code tells the caller one thing: whether running the same command again
can help. The Airflow operator, a shell script and a person read it alike.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage process ends with."""

    DONE = 0
    #: Wrong input or configuration: a retry cannot help.
    BAD_INPUT = 2
    #: More rows were quarantined than the failure budget allows: a retry cannot help.
    BUDGET_EXCEEDED = 3
    #: A passing fault (network, full disk, a dead engine): a retry may help. EX_TEMPFAIL.
    TRANSIENT = 75


#: Key of a result that says something although it is no success; the command line ends with its value.
EXIT_CODE = "exit_code"


class AitpError(Exception):
    """Base of all errors that a stage raises on purpose.

    The message names the thing, its value and the remedy, in one line.
    """

    exit_code = ExitCode.TRANSIENT


class InputError(AitpError):
    """Wrong input data or configuration."""

    exit_code = ExitCode.BAD_INPUT


class BudgetExceededError(AitpError):
    """A unit quarantined more than its failure budget."""

    exit_code = ExitCode.BUDGET_EXCEEDED


class TransientError(AitpError):
    """A fault that may be gone at the next try."""

    exit_code = ExitCode.TRANSIENT
