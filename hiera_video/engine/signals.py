"""Handle signals that ask a run to end: it saves after the current step, then exits.

After SIGTERM or SIGUSR1 the exit status is 75, EX_TEMPFAIL of sysexits.h: "try again later".
Nothing else here exits with 75, so a scheduler can requeue on it alone. The status is not 143,
which means that SIGTERM killed a process that saved nothing. After Ctrl-C the status is 130, as in
a shell: somebody wanted the run to end.
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

# Slurm sends SIGTERM to end or preempt a job, and SIGUSR1 with `--signal=USR1@120`.
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
REQUEUE_STATUS = 75
CTRL_C_STATUS = 130
# A scheduler may signal every process, and torchrun forwards signals: both are one request.
_SAME_NOTICE_SEC = 1.0
_CTRL_C = "Ctrl-C"
_AFTER_THIS_STEP = (
    b"\nCtrl-C: the run ends after this step. Ctrl-C again ends it at once, unsaved.\n"
)


class Requeue(SystemExit):
    """The run has saved its state and ends; the same command resumes it."""

    def __init__(self, status: int = REQUEUE_STATUS) -> None:
        super().__init__(status)


class StopSignals:
    """Handles SIGTERM, SIGUSR1 and Ctrl-C while entered; a second one ends the process at once.

    Ctrl-C stays ignored if it was, as for a shell's background commands. If nothing needs saving
    (before `hold`, after `release`), the first signal raises Requeue.

    Args:
        say: gets a line that says what is about to happen.
        nothing_to_save: the words in that line if nothing needs saving.
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
        # A run that ends because of a signal ignores later signals.
        if not self._ending and not isinstance(error, Requeue):
            for number, handler in self._before.items():
                signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether this process has been asked to end."""
        return bool(self._name)

    def hold(self) -> None:
        """Let signals wait from now on, until `end` or `release`: there is something to save."""
        self._held = True

    def release(self) -> None:
        """Let signals, also one that is waiting, raise Requeue: everything is saved."""
        self._held = False
        if self._name:
            self.end(self._nothing_to_save)

    def end(self, saved: str) -> NoReturn:
        """Report what was saved, and raise Requeue."""
        self._ending = True  # later signals, such as torchrun's SIGTERM, need no second save
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
            # A second Ctrl-C counts, however quick, unless a launcher may have forwarded it.
            may_be_same = not is_ctrl_c or self._name != _CTRL_C or dist.is_launched()
            if not may_be_same or now_sec - self._first_sec >= _SAME_NOTICE_SEC:
                os._exit(128 + number)  # as a shell reports a process that a signal killed
            return
        self._name = _CTRL_C if is_ctrl_c else signal.Signals(number).name
        self._first_sec = now_sec
        if not self._held:
            self.end(self._nothing_to_save)
        if is_ctrl_c and dist.is_main():
            with suppress(OSError):  # not by a stream, which may be in use when the signal comes
                os.write(2, _AFTER_THIS_STEP)
