"""Findings of checks, and the time limit of a check."""

import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from recsys_data.errors import RecsysDataError
from recsys_data.redaction import redacted

State = Literal["ok", "warning", "problem"]
SECONDS = 10.0


class Finding(msgspec.Struct, frozen=True):
    """The result of a check: what was found and, unless it is ok, what to do."""

    check: str
    state: State
    found: str
    advice: str = ""


Check = Callable[[], list[Finding]]


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "problem", found, advice)


def bounded(name: str, check: Check, seconds: float = SECONDS) -> list[Finding]:
    """What a check finds; what it raises is a problem, and so is not to end within `seconds`.

    >>> def check(): raise RecsysDataError("The log is held. Wait.")
    >>> bounded("log", check)
    [Finding(check='log', state='problem', found='The log is held. Wait.', advice='Follow the message.')]
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check())
        except RecsysDataError as error:
            found.append(problem(name, redacted(str(error)), "Follow the message."))
        except Exception as error:
            # Whatever is broken, the other checks are still worth having.
            text = redacted((str(error).strip().splitlines() or [""])[0])
            advice = "Look after the files, the disk and the permissions of the state folder; else report it."
            found.append(problem(name, f"{type(error).__name__}: {text}".removesuffix(": "), advice))

    # A daemon: what hangs in a dead mount or a silent server must not keep the process from ending.
    thread = threading.Thread(target=run, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [problem(name, f"no answer within {seconds:g} s", "Look after the disk, or whatever is asked there.")]
    return found
