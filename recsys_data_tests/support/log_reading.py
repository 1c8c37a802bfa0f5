"""Reading a whole event log back, for assertions."""

from recsys_data.ingestion.streaming.log import EventLog, LogSlice


def lines_of(piece: LogSlice) -> list[bytes]:
    """The lines of a slice, whether or not the backend leaves their newlines in it."""
    bounds = piece.bounds.tolist()
    return [piece.data[begin:end].removesuffix(b"\n") for begin, end in zip(bounds, bounds[1:], strict=False)]


def follow(log: EventLog, partition: int, start: int, max_bytes: int = 1 << 20) -> list[tuple[int, bytes]]:
    """Position and line of everything from `start` to the end of a partition."""
    found: list[tuple[int, bytes]] = []
    while len(piece := log.read(partition, start, max_bytes)):
        assert (piece.partition, piece.start) == (partition, start)
        found += zip(piece.positions.tolist(), lines_of(piece), strict=True)
        start = piece.end
    assert piece.end == start
    return found


def everything(log: EventLog, max_bytes: int = 1 << 20) -> list[bytes]:
    """Every line of the log, one partition after the other."""
    begins = log.begin_offsets()
    return [line for number in log.partitions() for _, line in follow(log, number, begins[number], max_bytes)]


def used_partition(log: EventLog) -> int:
    """The one partition that holds lines."""
    begins, ends = log.begin_offsets(), log.end_offsets()
    (partition,) = (number for number in log.partitions() if ends[number] > begins[number])
    return partition
