"""A process for the tests to race and to kill: URL NAME COUNT.

Says "ready", waits for a line, opens the store, commits COUNT evaluations scored NAME, each with a bound
that is least for every fourth NAME in turn, and asks for a registration's lease as NAME; prints who won each.
"""

import sys

from stockpot.entities import Bound, Score
from stockpot.store import SqlStore
from stockpot.testing.store_values import VALIDATION, soup

url, name, count = sys.argv[1:]
print("ready", flush=True)  # noqa: T201 - how it talks to the test
sys.stdin.readline()
store = SqlStore(url)
for number in range(int(count)):
    committed = store.commit_score(soup(str(number), "shared"), VALIDATION, Score((float(name),)))
    store.commit_bound(soup(str(number), "shared"), VALIDATION, Bound(float((int(name) + number) % 4)))
    print(f"{committed.examples[0]:.0f}", flush=True)  # noqa: T201 - as above
row = store.begin_registration("digits", soup("0", "shared"))
print(store.take_lease(row.lease, owner=name, seconds=1000).owner)  # noqa: T201 - as above
