import sys
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings

KAFKA = "recsys_data.ingestion.streaming.log.kafka."


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


def test_kafka_log_contacts_nobody_until_it_is_used(tmp_path: Path):
    log = open_log(Settings(dir=str(tmp_path), event_log="kafka://127.0.0.1:1/topic"))
    log.close()
    assert not list(tmp_path.iterdir())


def test_kafka_without_its_client_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith((KAFKA, "confluent_kafka"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(UserError, match=r"recsys-data\[kafka\]"):
        open_log(Settings(dir=str(tmp_path), event_log="kafka://127.0.0.1:1/topic"))
