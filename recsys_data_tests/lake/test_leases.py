"""Leases: one process at a time, among all machines where the catalog is on PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.consumer_lease import (
    ConsumerBusy,
    hold_lease,
    lease_holder,
    standby_waits,
)
from recsys_data.leases import exclusive_lease, lease, open_lease
from recsys_data.settings import Settings
from recsys_data_tests.support.lakes import database

pytestmark = pytest.mark.integration

HOLD = """
import sys, time
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.settings import Settings
with hold_lease(Settings.from_env(), 0, budget=60):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def catalog() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture(params=["file", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    remote = request.param == "postgresql"
    return Settings(dir=str(tmp_path), catalog=request.getfixturevalue("catalog") if remote else "")


def elsewhere(settings: Settings, folder: Path) -> Settings:
    """The same as another machine has it, if its catalog is not of one machine."""
    return msgspec.structs.replace(settings, dir=str(folder)) if settings.catalog else settings


def test_one_holds_a_lease_alone_and_several_share_it(settings: Settings, tmp_path: Path) -> None:
    other = elsewhere(settings, tmp_path / "other")
    with lease(settings, "work", 0) as mine, lease(other, "work", 0.05) as theirs, lease(other, "else", 0) as free:
        assert (mine, theirs, free) == (True, False, True)
    with lease(settings, "work", 0, shared=True) as first, lease(other, "work", 0, shared=True) as second:
        assert (first, second) == (True, True)
        with pytest.raises(Transient, match="busy here"), exclusive_lease(other, "work", "busy here"):
            pass
    with exclusive_lease(other, "work", "busy"):
        pass


def test_a_consumer_that_is_killed_leaves_its_lease(settings: Settings, tmp_path: Path) -> None:
    other = elsewhere(settings, tmp_path / "other")
    variables = {
        "RECSYS_DATA_DIR": settings.dir,
        **({"RECSYS_DATA_CATALOG": settings.catalog} if settings.catalog else {}),
    }
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        holder = lease_holder(other)
        assert (holder.process, standby_waits(other)) == (process.pid, False)
        assert holder.ends_at is not None
        with pytest.raises(ConsumerBusy, match=f"process {process.pid} holds"), hold_lease(other, 0.1):
            pass
        process.kill()
        process.wait()
        with hold_lease(other, 30):
            assert lease_holder(settings).process == os.getpid()
        assert lease_holder(settings) is None


def test_a_standby_waits_and_a_second_one_is_refused(settings: Settings, tmp_path: Path) -> None:
    other = elsewhere(settings, tmp_path / "other")
    with open_lease(other, "drain.next") as standby:
        assert standby.take()
        assert standby_waits(settings)
        with pytest.raises(ConsumerBusy, match="already waits"), hold_lease(settings, 0):
            pass
        standby.release()
    assert not standby_waits(settings)


def test_a_database_that_is_away_is_transient_and_its_password_hidden(tmp_path: Path) -> None:
    settings = Settings(dir=str(tmp_path), catalog="postgresql://u:s3cret-pass@127.0.0.1:1/lake")
    with (
        pytest.raises(Transient, match=r"work in postgresql://u:\*\*\*@127.0.0.1:1/lake") as failed,
        open_lease(settings, "work"),
    ):
        pass
    assert "s3cret" not in str(failed.value)
