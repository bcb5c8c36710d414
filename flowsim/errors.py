"""The errors flowsim raises for a user to read: one line each, naming key, value and remedy."""

from __future__ import annotations

from collections.abc import Iterable


class FlowsimError(Exception):
    """Base of every error that is the user's to mend; its text needs no traceback."""


class ConfigError(FlowsimError):
    """One or more things wrong with an experiment, all of them reported at once.

    Parameters
    ----------
    problems : str or iterable of str
        One line each: the key, its value, what is wrong and the remedy.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        # The default would rebuild the error from its joined text when it crosses processes.
        return (type(self), (self.problems,))


class FileFormatError(FlowsimError):
    """A file that is not a flowsim run, is damaged, or is of a newer format."""


class NewerFormatError(FileFormatError):
    """A run file of a format version that only a later flowsim reads: nothing is wrong with it."""


class StorageError(FlowsimError):
    """What a run has reached can no longer be saved: a full disk, a vanished folder, a lost lock.

    What was saved before stays readable.
    """


class DataWarning(UserWarning):
    """Data on which the flow is well defined but cannot do what one would expect."""
