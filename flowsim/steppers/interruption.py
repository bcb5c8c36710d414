"""Signals that ask a run to stop: noted, so that nothing is cut in half but a step that is tried.

Ctrl-C (SIGINT), SIGTERM, SIGHUP and SIGUSR1, the last of which batch systems can be told to send
some time before they end a job. An attempt at a step changes nothing that has been reached, so it
may be given up anywhere; whatever else a run is doing then (recording, writing) is brought to its
end. Further signals change nothing, but a third Ctrl-C is a KeyboardInterrupt after all.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_PATIENCE = 3
"""A user who presses Ctrl-C this often does not want to wait."""


class Interrupted(BaseException):
    """Raised where a signal arrives while an attempt is made."""


class Interruption:
    """Listens for signals that ask a run to stop.

    Attributes
    ----------
    name : str
        Of the first signal that came; empty if none did.
    """

    def __init__(self) -> None:
        self.name = ""
        self._cutting = False
        self._presses = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals from here on.

        Only those that would end the process: a handler of somebody else's stays. In threads
        other than the main one, where Python delivers no signals, nothing is changed.
        """
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is None:  # Windows
                    continue
                handler = signal.getsignal(number)
                if handler in (signal.SIG_DFL, signal.default_int_handler):
                    before[number] = handler
                    signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._presses += number == signal.SIGINT
        if self._presses >= _PATIENCE:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
        if self._cutting:
            self._cutting = False
            raise Interrupted

    def begin(self) -> None:
        """From here on a signal raises `Interrupted`; so does one that came before."""
        self._cutting = True
        if self.name:
            self._cutting = False
            raise Interrupted

    def end(self) -> None:
        """From here on a signal is only noted."""
        self._cutting = False
