"""No spelling of a secret comes out of any error: URLs of sources, of alerts, of collectors; tracebacks; Dagster."""

import base64
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.contracts.servers import Server
from recsys_data.errors import Permanent, RecsysDataError, Transient, UserError
from recsys_data.logs import TextFormatter
from recsys_data.monitoring.alerts.incidents import Alert
from recsys_data.monitoring.alerts.notifiers import WebhookNotifier
from recsys_data.redaction import redacted, redacted_url, secrets_of
from recsys_data.settings import Settings
from recsys_data.sources.databases import connect as connecting
from recsys_data.sources.extract import days_available, extract, without_secrets
from recsys_data.sources.locations import named
from recsys_data.sources.source import ColumnRequest
from recsys_data_tests.support.webhook import webhook

# What no message may hold of each password; all of them are long enough to be found by nothing else.
PASSWORDS = {
    "plain": ("hunter2secret", ["hunter2secret"]),
    "every special character": ("pq@ss:wz/rdx#1?yv", ["pq@", "ss:w", "wz/", "rdx#", "yv@", "?yv"]),
    "an ampersand and a plus": ("ampone&ptwo+pthree", ["ampone", "ptwo", "pthree"]),
    "percent signs": ("perc%zz%41ent", ["perc%", "zz%", "%41ent"]),
    "quotes": ("quo'te\"dz", ["quo'", 'te"dz', 'te\\"dz']),
    "blanks": ("two wordsz", ["wordsz"]),
}
SPELLINGS: dict[str, Callable[[str, str], str]] = {
    "login": lambda scheme, password: f"{scheme}://shop:{password}@127.0.0.1:1/db",
    "encoded login": lambda scheme, password: f"{scheme}://shop:{quote(password, safe='')}@127.0.0.1:1/db",
    "option": lambda scheme, password: f"{scheme}://127.0.0.1:1/db?user=shop&password={password}",
    "option without port": lambda scheme, password: f"{scheme}://127.0.0.1/db?password={password}",
    "encoded option": lambda scheme, password: f"{scheme}://127.0.0.1:1/db?user=shop&password={quote_plus(password)}",
    "variable in login": lambda scheme, _: f"{scheme}://shop:${{PW}}@127.0.0.1:1/db",
    "variable in option": lambda scheme, _: f"{scheme}://127.0.0.1:1/db?user=shop&password=${{PW}}",
    "variable as a whole": lambda *_: "${SHOP_URL}",
}
SCHEMES = ["postgresql", "postgresql+psycopg", "mysql", "nosuch", "s3", "s3-endpoint"]


def reported(work: Callable[[], object]) -> str:
    """All that a message, a traceback and Dagster show of an error; an empty text if there was none."""
    try:
        work()
    except Exception as error:
        info = serializable_error_info_from_exc_info(sys.exc_info())
        return f"{error}\n{''.join(traceback.format_exception(error))}\n{info.to_string()}"
    return ""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("password", "pieces"), PASSWORDS.values(), ids=PASSWORDS)
def test_no_way_to_spell_a_password_comes_out_of_a_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, password: str, pieces: list[str]
) -> None:
    wanted = [ColumnRequest("id", "string", "id")]
    for spelling, make in SPELLINGS.items():
        location = make(scheme.removesuffix("-endpoint"), password)
        monkeypatch.setenv("PW", password)
        monkeypatch.setenv("SHOP_URL", SPELLINGS["login"](scheme, password))
        server = Server("app", location, table="items")
        if scheme.startswith("s3"):
            server = Server("app", f"{location}/{{day}}/x.csv", format="csv")
        if scheme == "s3-endpoint":
            server = Server("app", "s3://b/{day}/x.csv", format="csv", endpoint=SPELLINGS["login"]("http", password))

        def read(server: Server = server) -> None:
            if "{day}" in server.location:
                days_available(server, tmp_path)
            with extract(server, wanted, datetime.now(UTC).date(), tmp_path) as found:
                list(found.batches)

        said = reported(read)
        assert said, f"{spelling}: expected an error"
        for piece in [*pieces, quote(password, safe=""), quote_plus(password)]:
            assert piece not in f"{said}\n{named(server)}", (spelling, piece)
        assert "server app" in said


def test_an_error_that_nobody_foresaw_shows_no_secret_of_the_location(tmp_path: Path) -> None:
    server = Server("app", "x://shop:hunter2secret@h/db", table="t")

    def fail(message: str) -> None:
        with without_secrets(server, tmp_path):
            raise KeyError(message) from ValueError(message)

    secret = server.location[9:22]
    for message in (secret, f"x://shop:{secret}@h", f"password={secret}"):
        assert secret not in reported(lambda message=message: fail(message))
    with pytest.raises(Permanent, match="KeyError"):
        fail("hunter2secret")
    with pytest.raises(KeyError, match="harmless"):
        fail("harmless")


def test_a_password_in_a_variable_reaches_the_database_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    from recsys_data.sources.locations import resolved

    for password, _ in PASSWORDS.values():
        monkeypatch.setenv("PW", password)
        login = make_url(resolved(Server("a", "postgresql://u:${PW}@h/d"), tmp_path, ""))
        option = make_url(resolved(Server("a", "postgresql://h:1/d?user=u&password=${PW}&x=y"), tmp_path, ""))
        assert (login.password, option.query["password"]) == (password, password)
        assert (login.host, option.host, option.query["x"]) == ("h", "h", "y")


@pytest.mark.parametrize("location", ["s3://key:sec/ret@bucket/x.csv", "s3://key:secret@bucket/x.csv"])
def test_a_login_in_s3_is_refused_with_what_to_do(tmp_path: Path, location: str) -> None:
    with pytest.raises(UserError, match="holds a login. Take it out, and set AWS_ACCESS_KEY_ID"):
        days_available(Server("app", location + "/{day}"), tmp_path)


ALERTS = [
    "http://user:hunter2secret@127.0.0.1:1/x",
    "http://user:pq@ss:wz/rdx#1@127.0.0.1:1/x",
    "http://127.0.0.1:1/services/T000/B000/hunter2secret",
    "http://127.0.0.1:1/x?token=hunter2secret",
    "http://[hunter2secret/x",
    "http://127.0.0.1:hunter2secret/x",
    "http://hunter2secret bad/x",
]


@pytest.mark.parametrize("url", ALERTS)
def test_nothing_of_an_alert_url_comes_out(url: str, tmp_path: Path) -> None:
    alert = Alert("1", "check", "subject", "problem", "error", "message", 1.0)
    said = reported(lambda: WebhookNotifier(url, "slack").send([alert], ""))
    assert "could not be delivered to RECSYS_DATA_ALERT_URL" in said
    settings = Settings(dir=str(tmp_path), alert_url=url, event_log="kafka://u:hunter2secret@h")
    for shown in (said, repr(settings), TextFormatter([url]).format(logging.makeLogRecord({"msg": f"to {url!r}"}))):
        assert not {piece for piece in ("hunter2secret", "wz/", "rdx", "T000") if piece in shown}


def test_the_login_of_an_alert_url_is_sent_as_one() -> None:
    with webhook() as hook:
        url = hook.url.replace("://", "://me:p%40ss@")
        WebhookNotifier(url, "json").send([Alert("1", "check", "s", "problem", "error", "m", 1.0)], "")
        assert hook.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


def test_a_collector_is_named_without_the_login_of_its_url(tmp_path: Path) -> None:
    from recsys_data.cli.support.delivery import CollectorTarget

    for url in ("http://me:hunter2secret@127.0.0.1:1", "http://me:hunter2secret@h:x", "http://hunter2secret@"):
        target = lambda url=url: CollectorTarget(url, Settings(dir=str(tmp_path)), lambda _: None).deliver([b"{}"])  # noqa: E731
        said = reported(target)
        assert said and "hunter2secret" not in said


def test_a_traceback_of_the_command_line_shows_no_secret(tmp_path: Path) -> None:
    code = (
        "import sys; from recsys_data import cli\n"
        "def fail(*_, **__): raise ValueError('postgresql://u:hunter2secret@h/d and ' + 'keyed' + 'secret')\n"
        "cli.cli = fail\n"
        "cli.main()"
    )
    environment = {"RECSYS_DATA_WRITE_KEYS": "keyedsecret", "RECSYS_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ValueError: postgresql://u:***@h/d and ***" in done.stderr
    assert "hunter2secret" not in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("https://token@example.org/x", "https://***@example.org/x"),
        ("s3://bucket/a@2x.png and s3://bucket/b", "s3://bucket/a@2x.png and s3://bucket/b"),
        ("file:///a/b:c", "file:///a/b:c"),
        ("http://127.0.0.1:8080/v1/events", "http://127.0.0.1:8080/v1/events"),
        ("sqlite:////state/shop.db", "sqlite:////state/shop.db"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        ("host=h password='two words' user=u", "host=h password=*** user=u"),
        ("x://h/d?sslpassword=a&sslmode=b", "x://h/d?sslpassword=***&sslmode=b"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=ab&x=1", "https://b.s3.amazonaws.com/k?X-Amz-Signature=***&x=1"),
        ("https://hooks.slack.com/services/T/B/x said no", "https://hooks.slack.com/*** said no"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("Authorization: Token abc", "Authorization: ***"),
        ("(b'authorization', b'Bearer abc')", "(b'authorization', ***')"),
        ("{'password': 'abc', 'user': 'u'}", "{'password': ***, 'user': 'u'}"),
        ('{"api_key": "abc", "user": "u"}', '{"api_key": ***, "user": "u"}'),
        ("Login(token=b'abc', user='u')", "Login(token=***, user='u')"),
        ("password='it''s abc' user=u", "password=*** user=u"),
        ("https://h/x?code=abc&pass=abc&page=2", "https://h/x?code=***&pass=***&page=2"),
        ("postgresql://u%3Aabc@h/d", "postgresql://u:***@h/d"),
        ("https://ptb.discord.com/api/webhooks/1/abc", "https://ptb.discord.com/api/webhooks/***"),
        ("columns 'password', 'email' (using password: NO)", "columns 'password', 'email' (using password: NO)"),
        ("server a (mysql://h/d?password=***): no such", "server a (mysql://h/d?password=***): no such"),
        ("no password supplied", "no password supplied"),
        ("a token of 3 bytes", "a token of 3 bytes"),
    ],
)
def test_what_is_secret_goes_and_what_is_around_it_stays(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "piece", ["://a:", "password=", "authorization", "?key=&", "secret", "x", "'", "://a%3A", "a@"]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        begun = time.process_time()
        redacted(piece * (length // len(piece)))
        return time.process_time() - begun

    # Twenty times as long: quadratic time would be four hundred times as much.
    assert seconds(200_000) < 60 * max(seconds(10_000), 0.005)


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8).filter(lambda text: text.strip("*"))
)
def test_a_known_secret_goes_in_every_spelling(secret: str) -> None:
    secret = f"zq{secret}qz"
    for spelled in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
        assert spelled not in redacted(f"before {spelled} after", [secret])
    assert secret not in redacted_url(f"x://u:{secret}@h/d")
    assert not any(one in redacted_url(f"x://u:{secret}@h/d") for one in secrets_of(f"x://u:{secret}@h/d"))


@pytest.mark.integration
def test_errors_of_sources_stay_errors_that_are_explained(tmp_path: Path) -> None:
    server = Server("app", "postgresql://u:hunter2secret@127.0.0.1:1/db", table="t")
    with (
        pytest.raises(RecsysDataError) as raised,
        extract(server, [ColumnRequest("id", "string", "id")], datetime.now(UTC).date(), tmp_path),
    ):
        pass
    assert isinstance(raised.value, Transient)
