from collections.abc import Iterator

import pytest

from recsys_data.ingestion import decode
from recsys_data_tests.ingestion.decoding import Decoding


@pytest.fixture(scope="session")
def any_decoding() -> Decoding:
    return Decoding()


@pytest.fixture
def decoding(any_decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoding]:
    """A decoder that takes the vectorised ways however few lines there are."""
    monkeypatch.setattr(decode, "WORTH_A_STATEMENT", 1)
    return any_decoding
