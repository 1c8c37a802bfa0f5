"""`recsys-data backup` and `restore`, as an operator types them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from recsys_data.settings import Settings

Run = Callable[..., Result]


def test_a_lost_state_folder_comes_back(
    run: Run, status: Callable[[], dict[str, Any]], settings: Settings, tmp_path: Path
) -> None:
    to = str(tmp_path / "backup")
    run("simulate", "--events", "60", "--to", "log")
    run("ingest", "--until-empty")
    run("simulate", "--events", "30", "--seed", "1", "--to", "log")
    said = run("backup", to).stdout
    assert "were new, in" in said and "Restore point:" in said
    assert "are as they were copied" in run("backup", to, "--verify").stdout
    assert "is not empty" in run("restore", to, code=1).output
    shutil.move(settings.data_dir, tmp_path / "lost")
    said = run("restore", to).stdout
    assert f"Restored {settings.data_dir} as of" in said and "Next: recsys-data ingest" in said
    run("ingest", "--until-empty")
    found = status()
    assert found["ledger"]["balanced"] and found["ledger"]["read"] == 90
    run("doctor")


def test_mistakes_are_explained(run: Run, tmp_path: Path) -> None:
    assert "There is no lake in" in run("backup", str(tmp_path / "to"), code=1).output
    assert "There is no backup in" in run("restore", str(tmp_path / "to"), code=1).output
    assert "There is no backup in" in run("backup", str(tmp_path / "to"), "--verify", code=1).output
