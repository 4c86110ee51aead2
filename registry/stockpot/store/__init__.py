"""Stockpot's own database: what was read, scored, selected and registered."""

from stockpot.store.engine import file_of, shown
from stockpot.store.memory import MemoryStore
from stockpot.store.schema import current, head, look, upgrade
from stockpot.store.sql import SqlStore

__all__ = ["MemoryStore", "SqlStore", "current", "file_of", "head", "look", "shown", "upgrade"]
