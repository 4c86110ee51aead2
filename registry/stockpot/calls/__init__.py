"""What the command does, for programs: the same settings, the same walk, the same errors."""

from stockpot.calls.sweeps import check, check_rules, check_task, domains, help_out, plan, scan, soup, submit
from stockpot.calls.versions import answer, audit, gate, promote, recall, report, watch

__all__ = [
    "answer",
    "audit",
    "check",
    "check_rules",
    "check_task",
    "domains",
    "gate",
    "help_out",
    "plan",
    "promote",
    "recall",
    "report",
    "scan",
    "soup",
    "submit",
    "watch",
]
