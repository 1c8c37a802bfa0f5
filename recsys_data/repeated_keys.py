"""Keys that stand more than once in a JSON object: a reader takes one of the values, and the others are lost.

Decoders do not report them. Written again, an object lacks the repeated key and its colon, so as many colons as before
prove that no key is repeated, whatever was decoded; a slower parser names the key.
"""

import json
from typing import Any

import msgspec

# A colon may also be written as an escape, within a string.
ESCAPED_COLON = b"\\u003"


class _RepeatedError(ValueError):
    pass


def may_repeat(text: bytes, decoded: Any) -> bool:
    r"""Whether a key of `text` may be repeated, by what a decoder made of it; False is a proof.

    >>> may_repeat(b'{"a": 1}', {"a": 1}), may_repeat(b'{"a": 1, "a": 2}', {"a": 2})
    (False, True)
    """
    return ESCAPED_COLON in text or text.count(b":") != msgspec.json.encode(decoded).count(b":")


def repeated_key(text: str | bytes) -> str | None:
    """A key that an object of this JSON text has more than once; None if there is none, or the text is not JSON.

    Raises:
        RecursionError: it is nested too deeply to be read.

    >>> repeated_key('{"a": [{"b": 1, "b": 2}]}'), repeated_key('{"a": {"a": 1}}'), repeated_key("{")
    ('b', None, None)
    """
    try:
        json.loads(text, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except _RepeatedError as error:
        return error.args[0]
    except ValueError:
        pass
    return None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedError(key)
        seen.add(key)
