"""Stockpot's own database: what was read, scored, selected and registered."""

from stockpot.store.memory import MemoryStore
from stockpot.store.schema import current, head, upgrade
from stockpot.store.sql import SqlStore

__all__ = ["MemoryStore", "SqlStore", "current", "head", "upgrade"]
