"""Whatever a client sends, it gets an answer that says what to do, and what was acknowledged is in the log once."""

import gzip
import itertools
import json
import logging
import zlib
from base64 import b64encode
from collections.abc import Callable

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_data_tests.support.fuzzing import LINES, STRINGS, VALUES, event_texts, examples

SECRET = "s3cret-key"
LIMIT = 20_000
ANSWERS = {200, 400, 401, 404, 405, 408, 413, 415, 429}
CALLS = ["track", "page", "screen", "identify", "alias", "group", "batch", "b", "import", "t", "events"]
numbers = itertools.count()


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def bomb(size: int) -> bytes:
    return gzip.compress(b"[" + b" " * size + b"]", 9, mtime=0)


MESSAGES = st.one_of(VALUES, event_texts())
BATCHES = st.builds(
    lambda messages, sent, context: f'{{"batch":[{",".join(messages)}],"sentAt":{sent},"context":{context}}}',
    st.lists(MESSAGES, max_size=4),
    VALUES,
    VALUES,
).map(as_bytes)
ORDERS = st.builds(
    lambda name, products, extra: (
        json.dumps({"event": name, "userId": "u", "messageId": "m"})[:-1]
        + f',"properties":{{"products":[{",".join(products)}],"revenue":{extra}}}}}'
    ),
    st.sampled_from(["Order Completed", "Product List Viewed", "Product Added", "\x00", "O" * 200]),
    st.lists(MESSAGES, max_size=4),
    VALUES,
).map(as_bytes)
BODIES = st.one_of(LINES, BATCHES, BATCHES, ORDERS, st.lists(LINES, max_size=4).map(b"\n".join), st.binary(max_size=50))
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "x-gzip": lambda body: gzip.compress(body[:3], mtime=0) + gzip.compress(body[3:], mtime=0),
    " GZIP ": lambda body: gzip.compress(gzip.compress(body, mtime=0), mtime=0),
    "Gzip": lambda body: gzip.compress(body, mtime=0)[:-5],
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body, mtime=0), mtime=0),
    "deflate": zlib.compress,
    "br": bytes,
    "\x00\r": bytes,
}
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Origin", "Content-Type", "User-Agent", "X-Forwarded-For", "Content-Length", "Cookie"])
        | st.sampled_from(["Expect", "Range", "If-Match", "Access-Control-Request-Method", "Host"]),
        st.sampled_from(["", "*", "null", "-1", "9" * 30, "application/json", "100-continue", "a" * 5000, "é", "{}"]),
    ),
    max_size=4,
)
LOGINS = st.one_of(
    st.none(),
    st.sampled_from([SECRET, SECRET + ":", SECRET + ":password", ":" + SECRET, "é:", "\ud800", "", SECRET[:-1]]).map(
        lambda key: b"Basic " + b64encode(key.encode("utf-8", "surrogatepass"))
    ),
    st.binary(max_size=20).map(lambda junk: b"Basic " + junk.replace(b"\r", b"").replace(b"\n", b"").strip()),
    st.sampled_from([b"Bearer " + SECRET.encode(), b"basic", b"Basic ====", b"\xff\xfe"]),
)


def assert_answered(answer: httpx.Response) -> None:
    assert answer.status_code in ANSWERS, answer.text
    assert not any(word in answer.text for word in ("Traceback", 'File "', ".py", SECRET)), answer.text
    if answer.status_code != 200:
        assert answer.json().keys() == {"error", "code", "message"}


@pytest.fixture
def limited(open_client):
    return open_client(max_request_bytes=LIMIT)


@examples(150)
@given(call=st.sampled_from(CALLS), body=BODIES, encoding=st.sampled_from(list(ENCODINGS)), headers=HEADERS)
@example(call="track", body=b'{"\\x80":1}', encoding="", headers=[])
@example(call="batch", body=b'{"batch":[{"\\xff":1}]}', encoding="", headers=[])
@example(call="batch", body=b'{"batch":[],"sentAt":"\\ud800"}', encoding="", headers=[])
@example(call="events", body=b"[]", encoding="", headers=[])
@example(call="events", body=b"[" * 9000, encoding="", headers=[])
@example(call="batch", body=b'{"batch":[' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"]}", encoding="", headers=[])
@example(call="events", body=bomb(50_000_000), encoding="identity", headers=[])
def test_a_request_is_answered_and_logged_as_a_whole_or_not_at_all(
    limited, log, caplog: pytest.LogCaptureFixture, call: str, body: bytes, encoding: str, headers: list
) -> None:
    caplog.clear()
    before = log.end_offsets()[0]
    sent = [(name, value.encode()) for name, value in headers]
    sent.append(("Content-Encoding", encoding.encode()))
    answer = limited.post(f"/v1/{call}", content=ENCODINGS[encoding](body), headers=sent)
    assert_answered(answer)
    added = log.read(0, before, 1 << 24)
    if answer.status_code != 200:
        assert len(added) == 0
    elif call == "events":
        assert len(added) == answer.json()["accepted"]
    assert len(added.data) <= 60 * LIMIT, "a small request filled the log"
    mapped = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert all("RecursionError" in (record.exc_text or "") for record in mapped), mapped


@examples(60)
@given(before=st.lists(LINES, max_size=3), after=st.lists(LINES, max_size=3), batched=st.booleans())
def test_what_was_acknowledged_is_in_the_log_once_whatever_came_with_it(
    limited, log, before: list[bytes], after: list[bytes], batched: bool
) -> None:
    name = f"planted-{next(numbers)}"
    at = log.end_offsets()[0]
    if batched:
        good = json.dumps({"type": "track", "event": "x", "userId": "u", "messageId": name}).encode()
        answer = limited.post("/v1/batch", content=b'{"batch":[' + b",".join([*before, good, *after]) + b"]}")
    else:
        good = json.dumps({"event_id": name, "type": "like", "user_id": "u", "item_id": "i"}).encode()
        answer = limited.post("/v1/events", content=b"\n".join([*before, good, *after]))
    assert_answered(answer)
    added = log.read(0, at, 1 << 24)
    ids = [event.get("event_id") for row in range(len(added)) if (event := parsed(added.line(row)))]
    assert ids.count(name) == (answer.status_code == 200), (answer.text, ids)


def parsed(line: bytes) -> dict | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


@pytest.fixture
def guarded(open_client):
    return open_client(write_keys=f"other,{SECRET}")


def knows_the_key(login: bytes | None, body: bytes) -> bool:
    # Another login than Basic is none of the collector's; the key may then stand in the body.
    if login is None or login.partition(b" ")[0].lower() != b"basic":
        return SECRET.encode() in body
    return login.partition(b" ")[2].strip().startswith(b64encode(SECRET.encode())[:8]) and login.startswith(b"Basic ")


@examples(80)
@given(
    login=LOGINS,
    key=st.one_of(st.none(), VALUES, STRINGS, st.just(f'"{SECRET}"')),
    body=event_texts(),
    call=st.sampled_from(["events", "track", "batch"]),
)
@example(login=None, key='"\\ud800"', body="{}", call="batch")
@example(login=b"Bearer " + SECRET.encode(), key=f'"{SECRET}"', body="{}", call="track")
@example(login=b"Basic \x80", key=None, body="{}", call="events")
def test_nobody_writes_without_the_key(
    guarded, log, login: bytes | None, key: str | None, body: str, call: str
) -> None:
    before = log.end_offsets()[0]
    body = f'{{"batch":[{body}]}}' if call == "batch" else body
    sent = as_bytes(body if key is None else f'{{"writeKey":{key},{body[1:]}')
    headers = {} if login is None else {"Authorization": login}
    answer = guarded.post(f"/v1/{call}", content=sent, headers=headers)
    assert_answered(answer)
    if not knows_the_key(login, sent):
        assert answer.status_code in (400, 401)
        assert log.end_offsets()[0] == before
    assert SECRET.encode() not in log.read(0, before, 1 << 20).data, "a key was written to the log"


PATHS = st.one_of(
    st.sampled_from(
        ["/", "//", "/v1", "/v1/", "/v1/batch/", "//v1/batch", "/v1//batch", "/v1/../metrics", "/V1/batch"]
    ),
    st.sampled_from(["/%2e%2e/%2e%2e/etc/passwd", "/v1/%00", "/v1/batch%00", "/v1/batch%2f", "/..;/health", "/docs"]),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="?#%"), max_size=20).map(
        "/".__add__
    ),
)


@examples(60)
@given(path=PATHS, method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "HEAD", "PATCH", "X"]))
def test_no_path_leads_anywhere_else(limited, log, path: str, method: str) -> None:
    answer = limited.request(method, path, content=b"{}" if method == "POST" else b"")
    assert answer.status_code < 500
    assert "Traceback" not in answer.text
    assert "root:" not in answer.text
    assert (answer.status_code == 200) <= (answer.request.url.path in ("/health", "/metrics", "/v1/events"))
    assert log.end_offsets()[0] == 0
