"""Up to where of the lake the online store is, which stands in it as one value beside the others."""

import msgspec

# No key of features is as short.
KEY = b"position"


class StreamPosition(msgspec.Struct, frozen=True):
    """How much of a stream was applied.

    Attributes:
        positions: log partition -> the next position in the event log.
        days: day (since 1970) -> rows that were applied. Where the table has another number, rows were deleted.
    """

    positions: dict[int, int] = {}
    days: dict[int, int] = {}


class HistoryPosition(msgspec.Struct, frozen=True):
    """What the values of a view over histories are.

    Attributes:
        moment: whose values they are, in microseconds.
        snapshots: history -> Iceberg snapshot that was read.
    """

    moment: int
    snapshots: dict[str, int] = {}


class Position(msgspec.Struct, frozen=True):
    """What an online store holds.

    Attributes:
        digests: view -> what its values depend on beside the data.
        streams: by dataset.
        histories: by view.
        moment: before which everything that is not marked as waiting happened, in microseconds.
        commit: number of the commit, so that no two positions are the same.
    """

    digests: dict[str, str] = {}
    streams: dict[str, StreamPosition] = {}
    histories: dict[str, HistoryPosition] = {}
    moment: int = 0
    commit: int = 0


_decoder = msgspec.msgpack.Decoder(Position)


def encode(position: Position) -> bytes:
    return msgspec.msgpack.encode(position)


def decode(stored: bytes | None) -> Position:
    """What a store says; an empty position if it was never written."""
    return _decoder.decode(stored) if stored else Position()
