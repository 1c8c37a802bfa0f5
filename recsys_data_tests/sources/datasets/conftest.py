import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts.load import load_contracts
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.sources.datasets import IMPORTERS
from recsys_data_tests.support.decoding import decode_lines, decoder_of

NOW = datetime(2027, 1, 1, tzinfo=UTC)
Lines = list[bytes]


@pytest.fixture
def load() -> Callable[[str, Path], Lines]:
    """Run an importer to its end; the lines it gives, which must be as many as it said."""

    def run(name: str, path: Path) -> Lines:
        found = IMPORTERS[name].read(path)
        lines = [line for batch in found for line in batch]
        assert len(lines) == found.total
        return lines

    return run


@pytest.fixture
def events(load: Callable[[str, Path], Lines]) -> Callable[[str, Path], list[dict[str, Any]]]:
    """As `load`, parsed."""
    return lambda name, path: [json.loads(line) for line in load(name, path)]


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    return decoder_of(load_contracts(), max_event_bytes=36 * 1024)


@pytest.fixture
def outcomes(decoder: Decoder) -> Callable[[Lines], list[str]]:
    """What ingestion makes of lines: `accepted`, or the reason for which each is rejected."""

    def validate(lines: Lines) -> list[str]:
        events, dead = decode_lines(decoder, lines, now=NOW)
        found = ["lost"] * len(lines)
        for event in events:
            found[event["row"]] = "accepted"
        for letter in dead:
            found[letter.row] = letter.reason
        return found

    return validate
