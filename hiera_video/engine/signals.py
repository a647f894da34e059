"""Requests that a run end: it saves after the current step, then exits.

After a scheduler's notice the exit status is 75, EX_TEMPFAIL of sysexits.h: "try again later".
Nothing else here ends with 75, so a scheduler can requeue on it alone. The status is not 143, which
means that SIGTERM killed a process that saved nothing. After Ctrl-C the status is 130, as a shell
reports it: somebody wanted the run to end.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn

from hiera_video.utils import dist

# Of Slurm: SIGTERM ends and preempts, SIGUSR1 is what `--signal=USR1@120` gives notice with.
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
REQUEUE_STATUS = 75
CTRL_C_STATUS = 130
# A scheduler may signal every process, and torchrun passes on what it gets: that is one notice.
_SAME_NOTICE_SEC = 1.0
_CTRL_C = "Ctrl-C"
_AFTER_THIS_STEP = (
    b"\nCtrl-C: the run ends after this step. Ctrl-C again ends it at once, unsaved.\n"
)


class Requeue(SystemExit):
    """The run has saved what it had and ends; the same command goes on from there."""

    def __init__(self, status: int = REQUEUE_STATUS) -> None:
        super().__init__(status)


class StopSignals:
    """Takes SIGTERM, SIGUSR1 and Ctrl-C while entered; a second one ends the process at once.

    Ctrl-C is left alone where it was ignored, as a shell does for commands in the background. Where
    nothing is to be saved (before `hold`, after `release`) the first one raises Requeue.

    Args:
        say: called with a line that says what is about to happen.
        nothing_to_save: the words in that line if there is nothing to save.
    """

    def __init__(
        self, say: Callable[[str], None], *, nothing_to_save: str = "all was saved before"
    ) -> None:
        self._say = say
        self._nothing_to_save = nothing_to_save
        self._before: dict[int, Any] = {}
        self._name = ""
        self._first_sec = 0.0
        self._held = False
        self._ending = False

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)  # SIGUSR1 is not on every platform
                ignored = name == "SIGINT" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                if number and not ignored:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A run that ends for a signal ignores what comes now, also where another one ended it.
        if not self._ending and not isinstance(error, Requeue):
            for number, handler in self._before.items():
                signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether this process has been asked to end."""
        return bool(self._name)

    def hold(self) -> None:
        """From now on there is something to save: a signal waits until `end` is called."""
        self._held = True

    def release(self) -> None:
        """All is saved: a signal, be it one that came just now, raises Requeue at once."""
        self._held = False
        if self._name:
            self.end(self._nothing_to_save)

    def end(self, saved: str) -> NoReturn:
        """Say what was saved, and raise Requeue."""
        self._ending = True  # what comes now, torchrun's SIGTERM say, is no reason to save again
        why = f"stopped by {self._name}" if self._name else "stopped: another process was asked to"
        status = CTRL_C_STATUS if self._name == _CTRL_C else REQUEUE_STATUS
        self._say(f"{why}; {saved}; exit status {status}: the same command goes on from there")
        raise Requeue(status)

    def _take(self, number: int, frame: FrameType | None) -> None:
        is_ctrl_c = number == signal.SIGINT
        if self._ending:
            os._exit(CTRL_C_STATUS if self._name == _CTRL_C else REQUEUE_STATUS)
        now_sec = time.monotonic()
        if self._name:
            # A second Ctrl-C is meant, however quick, unless a launcher may have passed it on.
            may_be_same = not is_ctrl_c or self._name != _CTRL_C or dist.is_launched()
            if not may_be_same or now_sec - self._first_sec >= _SAME_NOTICE_SEC:
                os._exit(128 + number)  # what a shell says of a process that a signal has killed
            return
        self._name = _CTRL_C if is_ctrl_c else signal.Signals(number).name
        self._first_sec = now_sec
        if not self._held:
            self.end(self._nothing_to_save)
        if is_ctrl_c and dist.is_main():
            with suppress(OSError):  # by no stream: the signal may have come while one writes
                os.write(2, _AFTER_THIS_STEP)
