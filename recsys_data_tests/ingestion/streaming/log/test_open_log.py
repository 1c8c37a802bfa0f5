from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings


def test_embedded_log_lies_below_the_data_folder_with_the_partitions_of_the_settings(tmp_path: Path):
    log = open_log(Settings(dir=str(tmp_path), log_partitions=3, segment_bytes=1))
    log.append([b"a"])
    log.append([b"b"])
    log.close()
    assert list(log.partitions()) == [0, 1, 2]
    assert len(list((tmp_path / "log").glob("*/*.ndjson"))) == 2


@pytest.mark.parametrize("url", ["carrier-pigeon://user:secret@loft/1", "embedded://x", ""])
def test_unknown_log_is_refused_naming_what_there_is_and_no_password(tmp_path: Path, url: str):
    with pytest.raises(UserError, match="RECSYS_DATA_EVENT_LOG.*expected `embedded`") as caught:
        open_log(Settings(dir=str(tmp_path), event_log=url))
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())
