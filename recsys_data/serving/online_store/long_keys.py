"""Keys of any length in stores that limit them: a key that is too long, or empty, is stored by its hash.

The stored key then is as long as the limit, and the value begins with the whole key, so that a scan knows it.
"""

from hashlib import sha256

DIGEST_BYTES = 32
LENGTH_BYTES = 4


class LongKeys:
    """Fits keys into a limit.

    Args:
        limit: the most bytes of a stored key.

    >>> keys = LongKeys(40)
    >>> keys.stored(b"user:1"), len(keys.stored(b"x" * 1000)), len(keys.stored(b""))
    (b'user:1', 40, 40)
    >>> keys.original(*keys.packed(b"x" * 50, b"value"))[1]
    b'value'
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # So much of a long key is kept as it is, for scans of a prefix.
        self.prefix = limit - DIGEST_BYTES

    def fits(self, key: bytes) -> bool:
        """Whether it is stored as it is."""
        return 0 < len(key) < self.limit

    def stored(self, key: bytes) -> bytes:
        """The key in the store."""
        if self.fits(key):
            return key
        return key[: self.prefix].ljust(self.prefix, b"\0") + sha256(key).digest()

    def packed(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Key and value as they are stored."""
        if self.fits(key):
            return key, value
        return self.stored(key), len(key).to_bytes(LENGTH_BYTES, "big") + key + value

    def original(self, stored: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Key and value as they were given."""
        if len(stored) < self.limit:
            return stored, value
        end = LENGTH_BYTES + int.from_bytes(value[:LENGTH_BYTES], "big")
        return value[LENGTH_BYTES:end], value[end:]
