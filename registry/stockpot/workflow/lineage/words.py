"""What a person's word about a recall names: checkpoints that are known, and what cannot be known."""

from collections.abc import Collection, Iterator

from stockpot.entities import Digest, Recall, RecallKind, tags
from stockpot.entities.domain import ALL, MOST, has_data_of, labels
from stockpot.errors import BadRequest, RegistryConflict
from stockpot.ports import Records
from stockpot.prose import counted, listed, near
from stockpot.workflow.gathering.recalled import in_force, runs_of
from stockpot.workflow.lineage.family import DIGEST
from stockpot.workflow.lineage.versions import holders
from stockpot.workflow.trace import snapshot_of

LIST = "stockpot recall --list"


def checkpoints_of(word: Recall, place: Records) -> tuple[tuple[Digest, ...], list[str]]:
    """The checkpoints that are known, and notes. Raises BadRequest for what does not exist, or is not
    recalled and shall be withdrawn.
    """
    if word.withdrawn:
        known = {(one.kind, one.name) for one in in_force(place.store.recalls())}
        if (word.kind, word.name) not in known:
            raise BadRequest(f"{word.told} is not recalled", mend=f"see what is: {LIST}")
    if word.kind is RecallKind.CHECKPOINT:
        if not DIGEST.fullmatch(word.name):
            raise BadRequest(
                f"{word.name!r} is no checkpoint's digest",
                mend="give it whole, as stockpot lineage --json tells it: sha256: and 64 digits",
            )
        return (Digest(word.name),), []
    if word.kind is RecallKind.DOMAIN and not word.withdrawn:
        _require_domain(word.name, place)
    runs = runs_of(word, place.tracker)
    checkpoints = place.store.logged_by(runs)
    if word.kind is RecallKind.RUN:
        if not checkpoints and not word.withdrawn and not [*place.tracker.runs_named(runs)]:
            raise BadRequest(f"no run {word.name!r}, in the store or in MLflow", mend="give the run's id")
        return checkpoints, [] if checkpoints else [f"no checkpoint of {word.told} was ever read"]
    if not runs and not word.withdrawn:
        raise BadRequest(
            f"no run logged a dataset with the digest {word.name!r}",
            mend="give the digest that MLflow shows at the run's datasets",
        )
    notes = [f"{word.told} was used by {', '.join(runs)}"] if runs else []
    return checkpoints, notes if word.withdrawn else [*notes, *_of_gone_runs(word, place)]


def _require_domain(domain: str, place: Records) -> None:
    """Raises BadRequest unless it is one label that some run has: runs of all data say it of any. Where all
    that have it are gone, they are told: soups may hold them.
    """
    mend = f"give one label, as the tag {tags.DOMAIN} of runs has it"
    if labels(domain) != {domain} or domain == ALL or len(domain) > MOST:
        why = "holds every run of all data" if domain == ALL else f"must be 1 to {MOST} characters, no comma"
        raise BadRequest(f"{domain!r} names no one domain: it {why}", mend=mend)
    told = place.tracker.runs_tagged(tags.DOMAIN)
    known = {label for run in told for label in labels(run.tags[tags.DOMAIN])}
    if domain not in known:
        _, beside = _gone_runs(place)
        if of_it := sorted(run for run, tag in beside.items() if domain in labels(tag)):
            raise BadRequest(
                f"no run that MLflow has names {domain!r}, but {counted(len(of_it), 'run')} of it in soups "
                f"did, gone from MLflow: {', '.join(of_it)}",
                mend=f"recall each of them: stockpot recall --run {of_it[0]} --reason TEXT",
            )
        there = f"there are {listed(sorted(known - {ALL}))}" if known - {ALL} else "no run names any"
        raise BadRequest(
            f"no run's tag {tags.DOMAIN} names {domain!r}: {there}{near(domain, known)}",
            mend=f"{mend}; runs of all data are recalled by --run",
        )


def _of_gone_runs(word: Recall, place: Records) -> Iterator[str]:
    """Notes on runs that soups hold and that this MLflow does not have: of those it cannot tell. What lies
    beside the versions tells which domain a run was of.
    """
    gone, told = _gone_runs(place)
    of_it = sorted(run for run, tag in told.items() if has_data_of(tag, word.name))
    if word.kind is RecallKind.DOMAIN and of_it:
        runs = counted(len(of_it), "run")
        yield f"{runs} of it in soups, gone from MLflow, must be recalled by --run: {', '.join(of_it)}"
    if word.kind is RecallKind.DOMAIN:
        gone -= {*told}
    if gone:
        runs = f"{counted(len(gone), 'run')} in soups, not in this MLflow any more,"
        yield f"whether {runs} used it is not known: {listed(sorted(gone))}; --run recalls one"


def _gone_runs(place: Records) -> tuple[set[str], dict[str, str]]:
    """The ids of runs that soups hold and that this MLflow does not have, and what lies beside the soups of
    their tag `stockpot.domain`.
    """
    versions = place.store.known_versions()
    blends = place.store.blends({one.checkpoint for one in versions}, down=False)
    found = place.store.found({blend.ingredient for blend in blends})
    ids = {one.run_id for one in found}
    gone = ids - {run.run_id for run, _ in place.tracker.runs_named(ids)}
    if not gone:
        return gone, {}
    held = {one.checkpoint for one in found if one.run_id in gone}
    return gone, _told_beside({blend.soup for blend in blends if blend.ingredient in held}, gone, place)


def _told_beside(soups: Collection[Digest], runs: Collection[str], place: Records) -> dict[str, str]:
    """The tag `stockpot.domain` of runs, by id, as it was when one of their soups was made; empty where it
    never was there. People set it late: of each run the first that is not empty.
    """
    told: dict[str, str] = {}
    for holder in holders(soups, place):
        if holder.version is None or {run for run, tag in told.items() if tag} >= {*runs}:
            continue
        try:
            _, snapshot = snapshot_of(holder.uri, place.tracker)
        except (BadRequest, RegistryConflict):
            continue  # a person may have taken it away, or damaged it
        told |= {
            one.run.run_id: told.get(one.run.run_id) or one.run.tags.get(tags.DOMAIN, "")
            for one in snapshot.ingredients
            if one.run.run_id in runs
        }
    return told
