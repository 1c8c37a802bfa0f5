"""Passwords in the URL of the catalog are in no text that people, logs or Dagster get."""

from pathlib import Path

import pytest

from recsys_data.defs.resources import resources
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.operations.platform import explain
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.lakes import database

SECRET = "s3cret-p4ss"
CATALOGS = [
    f"postgresql://user:{SECRET}@127.0.0.1:1/lake",
    f"postgresql://127.0.0.1:1/lake?user=user&password={SECRET}",
    f"http://127.0.0.1:1/catalog?credential=id:{SECRET}&warehouse=w",
    f"http://127.0.0.1:1/catalog?token={SECRET}",
]


# The driver of PostgreSQL is an extra.
@pytest.mark.parametrize(
    "catalog", [pytest.param(one, marks=[pytest.mark.integration] * one.startswith("postgresql")) for one in CATALOGS]
)
def test_a_catalog_that_is_away_is_named_without_its_password(
    catalog: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(dir=str(tmp_path), catalog=catalog)
    with pytest.raises(RecsysDataError, match="127.0.0.1:1") as failed:
        open_lake(settings, {})
    shown = [str(failed.value), explain(failed.value), repr(settings), *capfd.readouterr(), caplog.text]
    assert SECRET not in "".join(map(str, shown))
    assert any(SECRET in secret for secret in settings.secrets)


@pytest.mark.parametrize("name", ["CATALOG", "WAREHOUSE"])
def test_a_url_of_the_wrong_form_is_not_shown(name: str) -> None:
    with pytest.raises(UserError, match="a hidden value") as failed:
        Settings.from_env({f"RECSYS_DATA_{name}": f"ftp://user:{SECRET}@host/x"})
    assert SECRET not in str(failed.value)
    with pytest.raises(UserError):
        Settings.from_env({"RECSYS_DATA_WAREHOUSE": f"s3://key:{SECRET}@bucket/x"})


def test_dagster_does_not_show_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECSYS_DATA_CATALOG", CATALOGS[0])
    bound = resources().resources
    assert SECRET not in "".join(repr(one) + str(getattr(one, "_config_dict", "")) for one in bound.values())
    assert "catalog" not in bound["settings"].values


@pytest.mark.integration
def test_a_wrong_login_is_explained(tmp_path: Path) -> None:
    with database() as url:
        wrong = url.replace("recsys@", f"nobody:{SECRET}@")
        with pytest.raises(RecsysDataError, match='role "nobody" does not exist') as failed:
            open_lake(Settings(dir=str(tmp_path), catalog=wrong), {})
        assert SECRET not in str(failed.value)
