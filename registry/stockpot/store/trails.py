"""What every store does with trails."""

from collections.abc import Sequence

from stockpot.entities import Digest, TrailDraft, TrailEntry, TrailOf, Watch


def next_entries(
    of: TrailOf, drafts: Sequence[TrailDraft], known: Watch | None, at: float
) -> tuple[TrailEntry, ...]:
    """The drafts as the entries that follow what is known."""
    entries: list[TrailEntry] = []
    for draft in drafts:
        entries.append(TrailEntry.of(of, draft, entries[-1] if entries else known, at))
    return tuple(entries)


def is_appended(
    found: Sequence[TrailEntry], drafts: Sequence[TrailDraft], after: Digest | None
) -> tuple[TrailEntry, ...] | None:
    """The entries that follow `after` if they are these drafts: else somebody else's are there."""
    numbers = [entry.number for entry in found if entry.digest == after] if after else [0]
    if not numbers:
        return None
    follow = tuple(found[numbers[0] : numbers[0] + len(drafts)])
    return follow if [entry.draft for entry in follow] == list(drafts) else None
