import pytest

from registry.ports import Store
from registry.store import MemoryStore
from registry.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()
