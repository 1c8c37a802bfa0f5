"""How long fuzz tests look for trouble, and what they feed.

By default each tries a few examples, always the same. `RECSYS_TEST_FUZZ=50 pytest -n 0 -k fuzz` tries fifty times as
many, other ones each time.
"""

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("RECSYS_TEST_FUZZ", "1"))


def examples(count: int) -> settings:
    """Tries `count` examples, which share the fixtures of the test."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )


NAMES = st.sampled_from(
    ["event_id", "type", "user_id", "item_id", "event_ts", "sent_at", "received_at", "quantity", "price", "rating"]
    + ["context", "properties", "query", "device", "location", "lat", "lon", "consent", "timezone", "ip", "traits"]
    + ["", "$", "$event", "a.b", "\x00", 'it"s', "größe", "messageId", "userId", "writeKey", "timestamp", "batch"]
    + ["products", "product_id", "__proto__", "sentAt", "os", "page", "referrer", "name", "event", "key", "row"]
)
# Numbers and words as JSON text; the last ones are not JSON.
NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1", "1e999", "-1e999", "1e-999", "2.5", "1E2", "9223372036854775807", "9223372036854775808"]
    + ["-9223372036854775809", "9" * 400, "9" * 5000, "0." + "9" * 5000, "1e400000000", "5e-324", "0.1", "1e18"]
)
NO_NUMBERS = st.sampled_from(["NaN", "Infinity", "-Infinity", "nan", "-nan", "01", "1.", "+1", "", "nul", "'x'", "0x1"])
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["view", "purchase", "identify", "rating", "custom", "e1", "u1", "i1", "\x00", "a\nb", "\u2028", "{}"]
    ),
    st.sampled_from(["2026-01-02T03:04:05Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-00-00T00:00:00Z"]),
    st.sampled_from(
        ["2026-01-02T03:04:05+23:59", "2026-06-30T23:59:60Z", "infinity", "-infinity", "epoch", "x" * 3000]
    ),
    st.sampled_from(["Europe/Berlin", "Mars/Base", "1.2.3.4", "::1", "'; DROP TABLE interactions; --", "%s", "{0}"]),
)
# Within a JSON string, as it stands there: halves of surrogate pairs, NUL, escapes of structure, broken escapes.
ESCAPES = st.sampled_from(
    [
        r"\ud800",
        r"\udc00",
        r"\ud83d\ude00",
        r"\ude00\ud83d",
        r"\u0000",
        r"\u0022",
        r"\u003a",
        r"\x",
        r"\u12",
        "\\",
        "\x01",
    ]
)


def _string(text: str, escape: str) -> str:
    return json.dumps(text)[:-1] + escape + '"'


STRINGS = st.builds(_string, TEXTS, st.one_of(*[st.just("")] * 8, ESCAPES))
WORDS = st.sampled_from(["true", "false", "null"])
GAPS = st.sampled_from(["", "", "", "", " ", "\t", "  "])


def _object(pairs: list[tuple[str, str]], gap: str) -> str:
    return "{" + ("," + gap).join(f"{json.dumps(name)}:{gap}{value}" for name, value in pairs) + "}"


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(_object, st.lists(st.tuples(NAMES, inner), max_size=5), GAPS),
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        st.builds(
            lambda one, depth: "[" * depth + one + "]" * depth, inner, st.sampled_from([30, 99, 101, 2000, 30000])
        ),
    )


# JSON texts, most of them strict.
VALUES = st.recursive(st.one_of(STRINGS, STRINGS, NUMBERS, WORDS, NO_NUMBERS), _nested, max_leaves=12)
GOOD = {
    "event_id": '"e1"',
    "type": '"view"',
    "user_id": '"u1"',
    "item_id": '"i1"',
    "event_ts": '"2026-01-02T03:04:05Z"',
}


@st.composite
def event_texts(draw: st.DrawFn) -> str:
    """A good event with some members replaced or added, at times twice."""
    pairs = list(GOOD.items()) + draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    return _object(draw(st.permutations(pairs)), draw(GAPS))


def _many_keys(count: int) -> str:
    return _object([*GOOD.items(), *((f"k{number}", "0") for number in range(count))], "")


# Lines of a log: any bytes but newlines.
LINES = st.one_of(
    *[event_texts().map(lambda text: text.encode("utf-8", "surrogatepass"))] * 6,
    VALUES.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.builds(
        lambda text, place, junk: text[:place] + junk + text[place:],
        event_texts().map(str.encode),
        st.integers(0, 200),
        st.binary(min_size=1, max_size=3),
    ),
    st.sampled_from([100, 3000]).map(_many_keys).map(str.encode),
).map(lambda line: line.replace(b"\n", b" "))
