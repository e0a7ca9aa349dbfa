"""The errors a user may meet, and the exit code each ends in.

Every message says what happened, where (file, key, line or option) and what to do.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_FAILED = 10
EXIT_INCONCLUSIVE = 11
EXIT_INVALID = 12
EXIT_INTERRUPTED = 130


class PdbenchError(Exception):
    """What happened, where, and what to do about it."""

    exit_code = EXIT_CRASH

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        self.message = message
        self.where = where
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.remedy}" if self.remedy else head


class UsageError(PdbenchError):
    """Bad input: an option, a file, a key, a value. Nothing was started, or all of it was stopped."""

    exit_code = EXIT_USAGE


class BackendStartError(PdbenchError):
    """A backend could not be started; the message ends in the server's own last lines."""

    exit_code = EXIT_USAGE


class WorkersMissingError(BackendStartError):
    """Fewer load workers than a run needs: nothing was started, or what was measured before is kept."""


class Interrupted(PdbenchError):  # noqa: N818 - it is a wish, not a fault
    """A stop was asked for (SIGINT, SIGTERM): what was measured is written and marked INVALID."""

    exit_code = EXIT_INTERRUPTED


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``"did you mean 'rate'?"`` for a near miss, else the known words. ``""`` if there are none."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(sorted(known))}" if known else ""
