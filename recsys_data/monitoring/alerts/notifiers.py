"""Delivery of alerts: to the log and, if the settings name one, to a webhook (generic JSON or Slack).

Data flow: alerts of an evaluation -> one request -> 2xx, or `Transient`, and the next evaluation sends them again.
The URL is a secret: neither it nor the server's answer is ever shown, only the status. The operator
chooses which hosts may be reached. Run alone: `recsys-data alerts test`.
"""

import logging
import socket
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from recsys_data.errors import Transient
from recsys_data.monitoring.alerts.incidents import Alert
from recsys_data.settings import Settings

logger = logging.getLogger(__name__)

SECONDS = 5.0
# A server may answer so slowly that no single wait is too long.
SECONDS_IN_ALL = 10.0
MESSAGE_CHARACTERS = 500
SLACK_SIGNS = {"error": ":red_circle:", "warning": ":large_yellow_circle:", "recovered": ":large_green_circle:"}


class Notifier(Protocol):
    """Delivers alerts to one place."""

    @property
    def name(self) -> str:
        """The key of its deliveries in the state."""
        ...

    def send(self, alerts: Sequence[Alert], rest: str) -> None:
        """Deliver alerts; `rest` is a line about those that are left out.

        Raises:
            Transient: they may not have been delivered.
        """
        ...


class LogNotifier:
    """The log of this process."""

    name = "log"

    def send(self, alerts: Sequence[Alert], rest: str) -> None:
        levels = {"error": logging.ERROR, "warning": logging.WARNING}
        for one in alerts:
            level = levels[one.severity] if one.state == "problem" else logging.INFO
            logger.log(level, "%s", shortened(one.message), extra={"alert_id": one.id, "alert_state": one.state})
        if rest:
            logger.warning("%s", rest)


class WebhookNotifier:
    """A URL that gets one POST for all alerts of an evaluation."""

    def __init__(self, url: str, form: str) -> None:
        self._url = url
        self._form = form

    @property
    def name(self) -> str:
        """Another format is another notifier, to which nothing was delivered yet."""
        return f"webhook {self._form}"

    def send(self, alerts: Sequence[Alert], rest: str) -> None:
        content = slack_message(alerts, rest) if self._form == "slack" else json_message(alerts, rest)
        failure: list[str] = []
        # A daemon thread: a server that never ends its answer must not keep this process alive.
        thread = threading.Thread(
            target=_post, args=(self._url, msgspec.json.encode(content), failure), name="alerts", daemon=True
        )
        thread.start()
        thread.join(SECONDS_IN_ALL)
        found = f"no answer within {SECONDS_IN_ALL:g} s" if thread.is_alive() else "".join(failure)
        if found:
            raise Transient(
                f"Alerts could not be delivered to RECSYS_DATA_ALERT_URL: {found}. They are sent again within "
                "a minute; try it with `recsys-data alerts test`."
            )


def _post(url: str, body: bytes, failure: list[str]) -> None:
    # Only where something is delivered: the sensor of alerts is part of the definitions that each run loads.
    import requests

    headers = {"Content-Type": "application/json", "User-Agent": "recsys-data"}
    try:
        # A redirected POST would become a GET without the alerts.
        with requests.post(url, body, headers=headers, timeout=SECONDS, allow_redirects=False, stream=True) as answer:
            if not 200 <= answer.status_code < 300:
                failure.append(f"it was answered {answer.status_code}")
    except Exception as error:
        # Its text may hold the URL; the innermost cause does not.
        cause: BaseException = error
        while cause.__context__:
            cause = cause.__context__
        why = getattr(cause, "strerror", None)
        failure.append(type(cause).__name__ + (f" ({why})" if why else ""))


def notifiers_of(settings: Settings) -> list[Notifier]:
    """The notifiers that the settings name."""
    notifiers: list[Notifier] = [LogNotifier()]
    if settings.alert_url:
        notifiers.append(WebhookNotifier(settings.alert_url, settings.alert_format))
    return notifiers


def json_message(alerts: Sequence[Alert], rest: str) -> dict[str, Any]:
    """The generic format; `source` is this machine."""
    return {
        "version": 1,
        "source": socket.gethostname(),
        "sent_at": moment(datetime.now(UTC).timestamp()),
        "alerts": [
            msgspec.to_builtins(one) | {"at": moment(one.at), "message": shortened(one.message)} for one in alerts
        ],
        "rest": rest,
    }


def slack_message(alerts: Sequence[Alert], rest: str) -> dict[str, Any]:
    """The format of Slack's incoming webhooks, and of those compatible with them."""
    lines = [
        f"{SLACK_SIGNS[one.severity if one.state == 'problem' else one.state]} *{escaped(one.subject)}* "
        f"({one.kind}): {escaped(shortened(one.message))}"
        for one in alerts
    ]
    return {"text": "\n".join([*lines, *([escaped(rest)] if rest else []), f"_{escaped(socket.gethostname())}_"])}


def shortened(message: str) -> str:
    """One line of bounded length."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_CHARACTERS else f"{line[: MESSAGE_CHARACTERS - 1]}…"


def escaped(text: str) -> str:
    """Text in which Slack finds no links and mentions.

    >>> escaped("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def moment(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC.

    >>> moment(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
