"""Which online store the settings name."""

from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.serving.online_store.open import open_online_store
from recsys_data.settings import Settings


def test_the_embedded_store_is_below_the_state_folder(tmp_path: Path) -> None:
    store = open_online_store(Settings(dir=str(tmp_path)))
    store.commit(None, b"1", [(b"a", b"1")])
    store.close()
    assert (tmp_path / "online" / "data.mdb").is_file()


def test_an_unknown_scheme_is_explained_without_the_rest_of_the_url() -> None:
    with pytest.raises(UserError, match=r"begins with 'memcached': expected `embedded`, redis://") as found:
        open_online_store(Settings(online_store="memcached://me:swordfish@store"))
    assert "swordfish" not in str(found.value)
