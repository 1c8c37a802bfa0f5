"""Ctrl-C and SIGTERM as a flag that a long-running command checks between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """While entered, the first signal is remembered and ends waits; a second one interrupts at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}
        self.number: int | None = None

    def __enter__(self) -> "Stop":
        # Signals that are ignored (nohup, background jobs of a script) stay ignored.
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._asked) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until a signal."""
        self._event.wait(seconds)

    def wait_or_interrupt(self, seconds: float) -> None:
        """Sleep; a signal interrupts, for steps that may not succeed for long.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        self.wait(seconds)
        if self:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that a signal ended; 0 if none did."""
        return 0 if self.number is None else 128 + self.number
