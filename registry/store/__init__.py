"""Stockpot's own database: what was read, scored, selected and registered."""

from registry.store.memory import MemoryStore
from registry.store.schema import current, head, upgrade
from registry.store.sql import SqlStore

__all__ = ["MemoryStore", "SqlStore", "current", "head", "upgrade"]
