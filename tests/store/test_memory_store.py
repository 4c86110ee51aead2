import pytest

from stockpot.ports import Store
from stockpot.store import MemoryStore
from stockpot.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()
