"""How much a consumer reads, keeps and does at once."""

import os
from dataclasses import dataclass, field

# Each thread keeps a slice and all that is made of it, some 200 MB.
MOST_THREADS = 4


def _threads() -> int:
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLimits:
    """Limits of a consumer, all of which may be changed without changing what is stored.

    Attributes:
        threads: of decoding, and of writing; by default as many as this process has processors, at most four.
        slice_bytes: read from the log at once. Planning a statement for a slice costs as much as thousands of short
            lines; slices half as large cost up to 40 % more of a processor.
        long_line_bytes: slices of lines that are longer than this on average are half as large, because what is made
            of them takes more memory.
        commit_rows: lines that wait before they are committed. Rows of late days are kept until a commit, so that they
            gather into fewer files.
        commit_bytes: size in the log of the lines that wait before they are committed: long ones are fewer.
        commit_seconds: between two commits.
        catch_up_seconds: between two commits of a consumer that is far behind. What counts then is to catch up: fewer
            commits make larger files and less work.
        catch_up_share: of the time that the consumer is behind, the pause between two commits. A burst that is over in
            seconds must not delay the events among it.
        poll_seconds: between two reads of a log without new lines.
        statement_lines: lines that cost as much to read one by one as a statement costs to plan.
        statement_bytes: the same of lines that are long.
        small_piece_lines: lines that are read one by one if a statement fails on any; of more, halves are tried.
    """

    threads: int = field(default_factory=_threads)
    slice_bytes: int = 16 * 1024 * 1024
    long_line_bytes: int = 2048
    commit_rows: int = 250_000
    commit_bytes: int = 96 * 1024 * 1024
    commit_seconds: float = 1.0
    catch_up_seconds: float = 10.0
    catch_up_share: float = 0.1
    poll_seconds: float = 0.1
    statement_lines: int = 1000
    statement_bytes: int = 400_000
    small_piece_lines: int = 2000

    def are_worth_a_statement(self, lines: int, size: int) -> bool:
        """Whether to plan a statement costs less than to read so many lines, of `size` bytes, one by one."""
        return lines >= self.statement_lines or size >= self.statement_bytes


DEFAULT_LIMITS = ConsumerLimits()
