"""DuckDB sessions spill to a private folder, and have nothing to do with the current one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recsys_data
from recsys_data import sql
from recsys_data.contracts.rules import session
from recsys_data.sql import limit_threads, open_session, spill_folder

MANY = "SELECT count(*) FROM (SELECT DISTINCT i, md5(i::VARCHAR) FROM range(2000000) t(i))"


def test_a_session_spills_to_a_folder_that_only_its_user_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_session(parallel=True, memory_bytes=60_000_000) as connection:
        folder = Path(connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])
        assert connection.sql(MANY).fetchall() == [(2_000_000,)]
        assert folder.is_dir()
        assert folder.parent.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_a_parallel_session_has_as_many_threads_as_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(parallel: bool) -> int:
        with open_session(parallel) as connection:
            return connection.sql("SELECT current_setting('threads')").fetchall()[0][0]

    monkeypatch.setattr(sql, "_threads", None)
    limit_threads(3)
    assert (threads(True), threads(False)) == (3, 1)
    limit_threads(0)
    assert threads(True) == min(len(os.sched_getaffinity(0)), 4)


def test_sessions_share_no_folder() -> None:
    assert spill_folder() != spill_folder()


@pytest.mark.parametrize("confined", [False, True])
def test_sessions_of_contracts_have_nothing_to_do_with_the_current_folder(confined: bool) -> None:
    with session(confined=confined) as connection:
        ((folder,),) = connection.sql("SELECT current_setting('temp_directory')").fetchall()
    assert Path(folder).is_absolute()
    assert not Path(folder).is_relative_to(Path.cwd())


def test_the_folder_goes_with_the_process(tmp_path: Path) -> None:
    code = "from recsys_data.sql import open_session; print(open_session().execute('SELECT 1').fetchall())"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_no_session_is_opened_past_this() -> None:
    package = Path(recsys_data.__file__).parent
    opening = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"duckdb\.connect\(", path.read_text("utf-8"))
    }
    assert opening == {"sql.py"}
