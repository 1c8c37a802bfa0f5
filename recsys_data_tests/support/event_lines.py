"""Lines for decoding tests: events of every kind, written in every way that JSON allows and in many that it does not.

Everything comes from one seed. Values that JSON libraries would not write (NaN, 1e400, lone surrogates, trailing
commas, duplicate keys) are put into the text by hand.
"""

import random
from collections.abc import Callable

TYPES = (
    *("impression", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "refund", "rating", "like"),
    *("dislike", "search", "dwell", "scroll", "tag", "share", "bookmark", "page_view", "custom"),
    *("identify", "alias", "group"),
)
TEXTS = (
    *("", "u1", "42", "true", "null", "nan", "-Infinity", "{}", "[1,2]", 'a":1', 'say "x": {"y":[', "a, infinite b"),
    *("x : y", "{,}", "[,]", ",]", "back\\slash\\", "\\u0022:1", "tab\there", "line\nbreak", "Größe", "日本語", "👩‍🚀"),
    *("\x00nul", "\x7f", "\u2028", "a" * 300, ' "properties":{}', "’;--", "%00", "$event", "a/b"),
)
TIMES = (
    *("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678901+02:00"),
    *("2026-01-02t03:04:05z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05.123456789Z", "2026-03-29T01:30:00Z"),
    *("1995-01-01T00:00:00Z", "1994-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "2016-12-30T23:59:60Z"),
    *("2026-01-02T24:00:00Z", "2026-02-30T00:00:00Z", "2026-01-02T03:04:05", "2026-01-02", "1767323045", ""),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0999-06-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    *("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "2026-06-02T12:00:00Z", "2026-06-02T12:00:01Z"),
    *("2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+0200", "2026-01-02T03:04Z", " 2026-01-02T03:04:05Z"),
    *("20260102T030405Z", "2026-W01-1T00:00:00Z", "٢٠٢٦-01-02T03:04:05Z", "2026-01-02T03:04:05,5Z"),
)
NUMBERS = (
    *(
        "0",
        "-0",
        "1",
        "7",
        "10",
        "11",
        "0.5",
        "1.0",
        "2.5",
        "-1",
        "-0.0",
        "1e2",
        "1E-2",
        "0.1e1",
        "89.9",
        "90.5",
        "181",
    ),
    *("9007199254740993", "999999999999999", "-9223372036854775808", "9223372036854775807", "9223372036854775808"),
    *("123456789012345678901234567890", "1e300", "1e308", "1e400", "-1e400", "5e-324", "0.1000000000000000055511151"),
    *("1" * 400, "1" * 310, "3.0000000000000000000000001"),
)
NOT_JSON = (
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "-nan", "+1", "01", "1.", ".5", "0x1F", "tru", "nul", "None"),
    *("'x'", "undefined", "1_000", "- 1", "1e", "/* c */ 1"),
)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC", "Mars/Base", "europe/berlin", "+02:00")
ADDRESSES = ("203.0.113.7", "10.0.0.255", "2001:db8::1", "1.2.3", "not an address", "999.999.999.999")
STRINGS = (
    *("event_name", "user_id", "anonymous_id", "item_id", "session_id", "currency", "query", "tag", "list_id"),
    *("order_id", "recommendation_id", "model", "variant", "source", "previous_id", "group_id"),
)
INTEGERS = ("quantity", "dwell_ms", "position")
FLOATS = ("value", "price", "rating", "scroll_depth", "score", "propensity")
UNKNOWN = ("foo", "Bar", "a.b", "", "$", "$event", "context2", "größe", "device", "event-id", "EVENT_ID", "x y", "it's")

Pairs = list[tuple[str, "object"]]


class Raw(str):
    """JSON text that is written as it is."""


class Lines:
    """Draws lines; `harm` is the share of values that are replaced by something that does not belong there."""

    def __init__(self, seed: int, harm: float = 0.02) -> None:
        self.rng = random.Random(seed)
        self.harm = harm
        self.number = 0

    def take(self, count: int) -> list[bytes]:
        return [self.line() for _ in range(count)]

    def line(self) -> bytes:
        return Writer(self.rng, self.harm).line(self.event())

    def event(self) -> Pairs:
        """An event as its members in order; mostly a good one."""
        rng = self.rng
        self.number += 1
        kind = rng.choice(TYPES)
        event: dict[str, object] = {"event_id": f"e{self.number}", "type": kind, "event_ts": "2026-01-02T03:04:05.678Z"}
        if rng.random() < 0.7:
            event["received_at"] = "2026-06-01T11:00:00Z"
        event["user_id" if rng.random() < 0.7 else "anonymous_id"] = f"u{rng.randrange(9)}"
        needed = {"rating": ("rating", Raw("4.5")), "custom": ("event_name", "n")}
        needed |= {"alias": ("previous_id", "p"), "group": ("group_id", "g")}
        if kind not in ("search", "page_view", "custom"):
            event["item_id"] = f"i{rng.randrange(9)}"
        if kind in needed:
            name, value = needed[kind]
            event[name] = value
        self._some(event, 0.08, dict.fromkeys(STRINGS, self.text))
        self._some(event, 0.08, dict.fromkeys(INTEGERS, self.integer))
        self._some(event, 0.08, dict.fromkeys(FLOATS, self.small))
        self._some(event, 0.04, dict.fromkeys(("event_ts", "sent_at", "received_at", "client_event_ts"), self.time))
        if rng.random() < 0.6:
            event["context"] = self.context()
        if rng.random() < 0.3:
            event["properties"] = self.anything(2, kinds="o")
        self._some(event, 0.1, {"traits": lambda: self.anything(2, kinds="o")})
        self._unknown(event, 0.2)
        return self._disturbed(event)

    def context(self) -> Pairs:
        context: dict[str, object] = {}
        self._some(context, 0.4, {"timezone": lambda: self.rng.choice(ZONES), "ip": lambda: self.rng.choice(ADDRESSES)})
        self._some(
            context, 0.2, dict.fromkeys(("user_agent", "page", "url", "referrer", "locale", "network"), self.text)
        )
        inner: dict[str, Callable[[], object]] = {
            "device": lambda: self._of(("type", "manufacturer", "model", "os", "os_version", "browser")),
            "app": lambda: self._of(("name", "version")),
            "campaign": lambda: self._of(("source", "medium", "name")),
            "session": lambda: self._of(("goal", "mode")),
            "consent": lambda: [("location", Raw(self.rng.choice(("true", "false", "null"))))],
            "location": self.location,
        }
        self._some(context, 0.3, inner)
        self._unknown(context, 0.15)
        return self._disturbed(context)

    def location(self) -> Pairs:
        location: dict[str, object] = {}
        self._some(location, 0.5, dict.fromkeys(("country", "region", "city"), self.text))
        self._some(location, 0.7, dict.fromkeys(("lat", "lon"), self.small))
        return self._disturbed(location)

    def anything(self, depth: int, kinds: str = "snwoa") -> object:
        kind = self.rng.choice(kinds if depth else "snw")
        if kind == "o":
            keys = [self.rng.choice((*UNKNOWN, *STRINGS)) for _ in range(self.rng.randrange(4))]
            return [(key, self.anything(depth - 1)) for key in dict.fromkeys(keys)]
        if kind == "a":
            return tuple(self.anything(depth - 1) for _ in range(self.rng.randrange(4)))
        if kind == "n":
            return Raw(self.rng.choice(NUMBERS))
        return Raw(self.rng.choice(("true", "false", "null"))) if kind == "w" else self.text()

    def text(self) -> object:
        return self.rng.choice(TEXTS) if self.rng.random() < 0.3 else f"t{self.rng.randrange(99)}"

    def time(self) -> object:
        return self.rng.choice(TIMES)

    def integer(self) -> object:
        return Raw(self.rng.choice(NUMBERS) if self.rng.random() < 0.1 else str(self.rng.randrange(100)))

    def small(self) -> object:
        return Raw(self.rng.choice(NUMBERS) if self.rng.random() < 0.1 else str(self.rng.random()))

    def _of(self, names: tuple[str, ...]) -> Pairs:
        inner: dict[str, object] = {}
        self._some(inner, 0.4, dict.fromkeys(names, self.text))
        self._unknown(inner, 0.1)
        return self._disturbed(inner)

    def _some(self, into: dict[str, object], chance: float, draws: dict) -> None:
        for name, draw in draws.items():
            if self.rng.random() < chance:
                into[name] = draw()

    def _unknown(self, into: dict[str, object], chance: float) -> None:
        while self.rng.random() < chance:
            into[self.rng.choice(UNKNOWN)] = self.anything(2)

    def _disturbed(self, members: dict[str, object]) -> Pairs:
        """Some members replaced by anything or nothing, repeated, or in another order."""
        rng, pairs = self.rng, list(members.items())
        for place, (name, _) in enumerate(pairs):
            if rng.random() < self.harm:
                pairs[place] = (name, self.anything(1, kinds="snwoa"))
            elif rng.random() < self.harm:
                pairs[place] = (name, Raw("null"))
        if pairs and rng.random() < self.harm:
            pairs.append(rng.choice(pairs))
        if rng.random() < 0.3:
            rng.shuffle(pairs)
        return pairs


class Writer:
    """Writes one event as a line, in a style of its own."""

    def __init__(self, rng: random.Random, harm: float) -> None:
        self.rng = rng
        self.harm = harm
        blanks = ("",) * 15 + (" ",) * 15 + ("  ", "\t")
        self.before_colon = rng.choice(("",) * 40 + (" ",))
        self.after_colon = rng.choice(blanks)
        self.after_comma = rng.choice(blanks)
        self.within = rng.choice(("",) * 20 + (" ", "  ", "\t"))
        self.escapes = rng.choice((0,) * 12 + (0.2, 1))
        self.odd = rng.random() < harm

    def line(self, event: Pairs) -> bytes:
        rng = self.rng
        line = self._write(event).encode("utf-8", "surrogatepass")
        if rng.random() < 0.05:
            line += b"\r"
        if self.odd and rng.random() < 0.5:
            line = rng.choice(
                (b"", b" ", b"\xef\xbb\xbf" + line, b"[]", b"7", line[:-1], line + b",", line + line, b'"')
            )
        if self.odd and rng.random() < 0.3:
            place = rng.randrange(len(line) + 1)
            line = line[:place] + rng.choice((b"\xff", b"\xed\xa0\x80", b"\x01", b"\xc3", b"\\ud800")) + line[place:]
        return line

    def _write(self, value: object) -> str:
        if isinstance(value, list):
            return self._joined("{", [self._member(name, one) for name, one in value], "}")
        if isinstance(value, tuple):
            return self._joined("[", [self._write(one) for one in value], "]")
        if self.odd and self.rng.random() < 0.05:
            return self.rng.choice(NOT_JSON)
        return value if isinstance(value, Raw) else self._string(str(value))

    def _joined(self, opening: str, parts: list[str], closing: str) -> str:
        if self.odd and parts and self.rng.random() < 0.05:
            parts = [*parts, self.rng.choice(("", " ", "  ", "\t"))]
        return opening + self.within + ("," + self.after_comma).join(parts) + self.within + closing

    def _member(self, name: str, value: object) -> str:
        return self._string(name) + self.before_colon + ":" + self.after_colon + self._write(value)

    def _string(self, text: str) -> str:
        return '"' + "".join(map(self._character, text)) + '"'

    def _character(self, character: str) -> str:
        if self.rng.random() < self.escapes:
            units = character.encode("utf-16-be")
            return "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))
        short = {'"': '\\"', "\\": "\\\\", "\t": "\\t", "\n": "\\n", "/": self.rng.choice(("/", "\\/"))}
        return short.get(character) or (f"\\u{ord(character):04x}" if ord(character) < 0x20 else character)
