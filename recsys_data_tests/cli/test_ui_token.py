import stat
from pathlib import Path

import pytest

from recsys_data.cli.up import introduce
from recsys_data.operations.ui.token import ui_token
from recsys_data.settings import Settings

TOKEN = "t" * 43
ADDRESS = "http://127.0.0.1:3000"


def test_the_token_is_for_its_owner_and_survives_a_restart(tmp_path: Path) -> None:
    token = ui_token(tmp_path / "ui-token")
    path = tmp_path / "ui-token"
    assert len(token) == 43 and path.read_text() == f"{token}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ui_token(tmp_path / "ui-token") == token
    assert list(tmp_path.iterdir()) == [path]


def test_a_token_that_others_could_read_or_guess_is_replaced(tmp_path: Path) -> None:
    token = ui_token(tmp_path / "ui-token")
    path = tmp_path / "ui-token"
    path.chmod(0o640)
    second = ui_token(tmp_path / "ui-token")
    assert second != token and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("")
    assert len(ui_token(tmp_path / "ui-token")) == 43


@pytest.mark.parametrize("terminal", [True, False])
def test_the_token_is_printed_to_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    introduce(Settings(dir=str(tmp_path)), ADDRESS, TOKEN, "http://127.0.0.1:8080", "http://127.0.0.1:8090", {})
    printed = capsys.readouterr().out
    assert (f"{ADDRESS}/?token={TOKEN}" in printed) is terminal
    assert terminal or (TOKEN not in printed and str(tmp_path / "ui-token") in printed)
