"""What can go wrong, by what the caller should do about it.

Every message says what was found, what was expected and what to do. The command line prints the message of
a `RecsysDataError` without a traceback; anything else is a defect of ours and is shown whole.
"""


class RecsysDataError(Exception):
    """Base of every error that is explained to the user."""


class UserError(RecsysDataError):
    """A command, a setting or a file that cannot be used as given; nothing was changed."""


class ContractError(UserError):
    """A data contract that makes no sense; the message names the file, the path in it and what to do."""


class Transient(RecsysDataError):
    """The same call may succeed later (a lock is held, a disk is full, a service is away)."""


class Permanent(RecsysDataError):
    """The same call will fail again until somebody changes something."""


class PositionMoved(Transient):
    """Another writer committed first; what this writer prepared is void and must be read again."""


class BadRecord(RecsysDataError):
    """One line of the event log that cannot become an event.

    Attributes:
        reason: the short, stable name that dead letters are grouped by, e.g. `wrong_type`.
        detail: what exactly was found and expected, e.g. "Expected `int`, got `str` - at `$.quantity`".
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
