import msgspec
import pytest

from recsys_data_tests.support.contract_files import load
from recsys_data_tests.support.feature_views import CLICKS, USERS
from recsys_data_tests.support.training import PRICES, TrainingShop


@pytest.fixture(scope="module")
def contract_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contracts")


@pytest.fixture(scope="module")
def contracts(contract_folder):
    return load(contract_folder, CLICKS, USERS, PRICES)


@pytest.fixture
def shop(tmp_path, contracts, contract_folder):
    for left in (contract_folder / "training_sets").glob("*.yaml"):
        left.unlink()
    made = TrainingShop(tmp_path, contracts, partitions=1)
    made.settings = msgspec.structs.replace(made.settings, contracts=str(contract_folder))
    made.declare()
    yield made
    made.close()
