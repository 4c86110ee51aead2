"""Weights on demand: from a run's artifact into the cache, and from the cache into a recipe's average."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Digest,
    ExclusionReason,
    IngestedSource,
    Recipe,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
    model_files,
)
from stockpot.errors import Altered, BadCheckpoint, Incompatible, NoBase, NotCached, NotFinite, Pickled
from stockpot.prose import visible
from stockpot.soup import CheckpointCache, build, differing_values, ingest_adapter, join_adapters
from stockpot.soup.average import opened
from stockpot.soup.coefficients import write_coefficients
from stockpot.soup.overlay import Overlay
from stockpot.soup.weights_file import WeightsFile
from stockpot.workflow.gathering.numberings import Numberings
from stockpot.workflow.gathering.places import Places, is_local, path_of
from stockpot.workflow.gathering.recalled import Recalled, recalled
from stockpot.workflow.gathering.ties import ties
from stockpot.workflow.gathering.workrooms import PACKAGE, PART, remove_abandoned, workroom
from stockpot.workflow.leases import Hold, pauses

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker

T = TypeVar("T")

POLL_SECONDS = 0.05, 2.0
"""Between two looks at what other processes read: the first of these at first, the second in the end."""
PREFETCHES = 2
"""Downloads in the background at once; a wish for more is not granted."""
_RESTORE = "restore the artifact, or run the request again to use the sweep as it is now"
TRIES = 3
"""To use checkpoints, where other processes keep evicting one of them."""


class Supply:
    """Hands out checkpoints by digest, downloading those that the cache does not hold.

    A good file is read once: its checkpoint is remembered in the store, so that a repeated request does
    not download it. MLflow tells no more of an artifact than its size: whatever its run logged before it
    ended again, later, is read anew. A file that was replaced by one of the same size while its run stayed
    as it was is noticed when it is next downloaded, by its digest. All methods may be called from
    several threads at once; no digest is downloaded twice at the same time. `say` hears of files that were
    altered in the cache, `uses` of local files that checkpoints are made of.
    """

    def __init__(
        self,
        tracker: "Tracker",
        store: "Store",
        cache: CheckpointCache,
        say: Callable[[str], object] = lambda _: None,
        uses: Callable[[Path], object] = lambda _: None,
    ) -> None:
        self._tracker = tracker
        self._files = Places(tracker)
        self._store = store
        self._cache = cache
        self._say = say
        self.numberings = Numberings(tracker)
        """What is known of runs' tokens and classes."""
        self._uses = uses
        self._bases = Lock()
        self._candidates: dict[str, Candidate] = {}
        self._makers: dict[Digest, Callable[[], Digest]] = {}  # of what no run logged
        self._lock = Lock()
        self._under_way: dict[str, Future[None]] = {}
        self._background = ThreadPoolExecutor(PREFETCHES)
        remove_abandoned(cache.folder)

    def recalled(self) -> Recalled:
        """What no soup may hold now. Raises TrackingError where MLflow is asked, and does not answer."""
        return recalled(self._store, self._tracker)

    def ingest(self, source: WeightsSource) -> IngestedSource | None:
        """Read a weights file, or remember what reading it found. None while another process reads it."""
        found = self._remembered(source)
        if found is not None:
            return found
        hold = Hold(self._store, f"read {source.key}", f"the reading of {source.path}")
        if hold.attempt() is not None:
            return None
        with hold.kept_alive():
            found = self._remembered(source)
            if found is None:
                found = self.read(source)
                self._store.remember_ingested(found)
            return found

    def read(self, source: WeightsSource) -> IngestedSource:
        """Read a weights file, whatever is remembered of one of this name, and remember nothing."""
        with workroom(self._cache.folder, PART) as folder:
            file = self._files.fetch(source, folder)
            cast_from: tuple[str, ...] = ()
            try:
                if source.base is not None:
                    checkpoint, sha256, cast_from = self._merge(source, source.base, file)
                elif source.cast:
                    checkpoint, sha256, cast_from = self._cache.ingest_cast(file, source.format, source.cast)
                else:
                    checkpoint, sha256 = self._cache.ingest(file, source.format)
            except (Incompatible, NoBase):  # no fault of the file
                raise
            except NotFinite as error:
                return _fault(source, file, ExclusionReason.NOT_FINITE, error)
            except Pickled as error:
                return _fault(source, file, ExclusionReason.PICKLE, error)
            except BadCheckpoint as error:
                return _fault(source, file, ExclusionReason.UNREADABLE, error)
        return IngestedSource(
            source.key,
            source.size,
            sha256,
            checkpoint,
            run_ended=source.run_ended,
            cast_from=cast_from or None,
        )

    def read_once(self, source: WeightsSource) -> IngestedSource:
        """What reading this file found, its weights in the cache: read where it is not, and remembered."""
        with self._bases:  # whoever comes meanwhile needs the same
            found = self._remembered(source)
            if found is None or found.checkpoint is None or not self._cache.has(found.checkpoint.digest):
                found = self.read(source)
                self._store.remember_ingested(found)
            return found

    def base(self, source: WeightsSource) -> Digest:
        """The weights that adapters are merged into, by digest: read into the cache where it lacks them.

        Raises NoBase where they cannot be used.
        """
        found = self.read_once(source)
        if found.checkpoint is None:
            raise NoBase(
                f"its base {source.uri} cannot be used: {found.detail}",
                mend="name another with --base",
            )
        return found.checkpoint.digest

    def depend_on(self, base: WeightsSource | None) -> None:
        """Tell of the local files that this base lies in, and of its configuration."""
        if base is not None and is_local(base):
            beside = model_files(base, self._files.companions(base)).values()
            parts = [base.beside(part) for part in base.parts]
            for file in {path_of(each) for each in (*(parts or [base]), *beside)}:
                self._uses(file)

    def _merge(
        self, source: WeightsSource, base: WeightsSource, file: Path
    ) -> tuple[Checkpoint, str, tuple[str, ...]]:
        """An adapter's file, merged into its base; and what was cast."""
        tied = ties(base, self._files)
        for last in range(1 - TRIES, 1):
            digest = self.base(base)
            with self._cache.pinned([digest]):
                try:
                    merged, sha256 = ingest_adapter(self._cache, file, source.format, digest, ties=tied)
                    if source.cast:
                        whole = self._cache.path(merged.digest)
                        cast, _, cast_from = self._cache.ingest_cast(
                            whole, WeightsFormat.SAFETENSORS, source.cast
                        )
                        return cast, sha256, cast_from
                except NotCached:  # another process evicted it
                    if not last:
                        raise
                else:
                    return merged, sha256, ()
        raise AssertionError("the last try returns or raises")

    def join(self, recipe: Recipe, candidates: Sequence[Candidate], soup: Path, into: Path) -> None:
        """Write a soup of adapters as one adapter, into this new folder. `candidates`: the recipe's
        ingredients, in its order; `soup`: its file. Raises Incompatible, with the reason, where that is none.
        """
        bases = [candidate.source.base for candidate in candidates]
        if recipe.coefficients is not None or recipe.overlay is not None:
            raise Incompatible("the soup is more than a weighted mean")
        if None in bases or any(candidate.cast_from for candidate in candidates):
            raise Incompatible("not all of its ingredients are adapters, in the precision of their base")
        digests = {self.base(base) for base in bases if base is not None}
        weights = [ingredient.factor for ingredient in recipe.ingredients]
        if len(digests) > 1 or abs(sum(weights) - 1) > len(weights) * sys.float_info.epsilon:
            raise Incompatible("the soup is no mean of adapters of one base")
        (base,) = digests
        with workroom(self._cache.folder, PART) as folder, self._cache.pinned([base]):
            files = []
            for place, candidate in enumerate(candidates):
                (folder / str(place)).mkdir()
                file = self._files.fetch(candidate.source, folder / str(place))
                files.append((file, candidate.source.format))
            tied = any(ties(place, self._files) for place in bases[:1] if place is not None)
            join_adapters(self._cache, files, weights, base, soup, into, ties=tied)

    def known(self, source: WeightsSource) -> Checkpoint | None:
        """What the file holds, where it was read before."""
        found = self._remembered(source)
        return found.checkpoint if found else None

    def layout(self, source: WeightsSource) -> tuple[TensorSpec, ...] | None:
        """Its tensors, where it was read before."""
        known = self.known(source)
        return known.tensors if known else None

    def differing_values(self, one: Candidate, other: Candidate) -> tuple[str, ...]:
        """In which integer and boolean tensors two checkpoints of one layout differ, where both are here."""
        try:
            with (
                self._cache.open(one.checkpoint.digest) as reference,
                self._cache.open(other.checkpoint.digest) as file,
            ):
                return differing_values(reference, file)
        except (Altered, NotCached):  # whoever needs them downloads them
            return ()

    def cosines(
        self, digests: Sequence[Digest], most: int, base: Digest | None = None
    ) -> Mapping[str, float]:
        """For each floating-point tensor, the mean cosine of these checkpoints' weights, over all pairs, by
        at most so many elements; empty where one of them is not here, or its squares overflow. A tensor that
        is zero in the base, or in all but one of these, is left out.
        """
        from stockpot.soup.model_stock import mean_cosines

        try:
            with opened(Recipe.mean(digests), self._cache.open) as files:
                found = mean_cosines(files, most=most)
            if base is None:
                return found
            with self._cache.open(base) as start:
                begun = mean_cosines([start, start], most=most)  # of zeros there is no cosine
            return {name: cosine for name, cosine in found.items() if name in begun}
        except (Altered, NotCached, NotFinite):
            return {}

    def pauses(self) -> Iterator[None]:
        """Between two looks at what other processes read."""
        return pauses(self._store, *POLL_SECONDS)

    def is_here(self, digest: Digest) -> bool:
        """Whether the cache holds this checkpoint."""
        return self._cache.has(digest)

    def offer(self, candidates: Iterable[Candidate]) -> None:
        """Make these candidates' checkpoints available by digest."""
        self._candidates.update({candidate.checkpoint.digest: candidate for candidate in candidates})

    def model_stock(self, models: Sequence[Digest], base: Digest) -> Digest:
        """Model Stock's coefficients of these models around the base, in the cache: their file's digest. All
        are read twice. Raises NotFinite for updates that are too long to be measured.
        """
        made = self._with([*models, base], lambda: self._coefficients(models, base))
        self._makers[made] = partial(self.model_stock, models, base)
        return made

    def _coefficients(self, models: Sequence[Digest], base: Digest) -> Digest:
        from stockpot.soup.model_stock import coefficients

        with opened(Recipe.mean([*models, base]), self._cache.open) as (*files, start):
            return write_coefficients(coefficients(files, start), self._cache).digest

    def offer_content(self, digest: Digest, content: Callable[[], bytes]) -> None:
        """Make a small file in canonical form available by digest; its content is asked for where it is
        missing.
        """
        self._makers[digest] = lambda: self._keep(content())

    def content(self, digest: Digest) -> bytes:
        """The whole file: for small ones."""
        with self.open(digest) as weights:
            return bytes(weights.file.read(0, weights.file.size))

    def _keep(self, content: bytes) -> Digest:
        with workroom(self._cache.folder, PART) as folder:
            file = folder / "content.safetensors"
            file.write_bytes(content)
            return self._cache.ingest(file, WeightsFormat.SAFETENSORS)[0].digest

    def candidate(self, digest: Digest) -> Candidate:
        """The candidate that this checkpoint was offered with."""
        return self._candidates[digest]

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        """The checkpoint's file, its header checked; downloaded first if it is not here."""
        with ExitStack() as stack:
            yield self._with([digest], lambda: self._enter(digest, stack))

    def prefetch(self, digest: Digest) -> None:
        """Download the checkpoint in the background, unless it is here or enough are on their way.

        Never raises: whoever opens it waits for the download, or tries again.
        """
        with self._lock:
            full = len(self._under_way) >= PREFETCHES
        if not full and digest in self._candidates and not self._cache.has(digest):
            download, mine = self._begin(digest)
            if mine:
                self._background.submit(self._download, digest, download)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder for what is looked at and not kept. Raises StockpotError where the disk fails."""
        with workroom(self._cache.folder, PART) as folder:
            yield folder

    @contextmanager
    def building(self, recipe: Recipe, overlay: Overlay | None = None) -> Iterator[tuple[Checkpoint, Path]]:
        """The recipe's average, and a file of it that nobody evicts meanwhile. Raises what `build` raises.

        `overlay`: what the recipe's rule led to, where that may be another than the store knows.
        """
        with workroom(self._cache.folder, PACKAGE) as folder:
            file = folder / "model.safetensors"
            built = self.build(recipe, file, overlay)
            try:
                yield built, file
            finally:
                self._cache.unlink(built.digest, file)

    def build(self, recipe: Recipe, link: Path | None = None, overlay: Overlay | None = None) -> Checkpoint:
        """The recipe's average as a canonical file in the cache, and under this name beside it.

        Raises Altered, besides what `stockpot.soup.build` raises, where an ingredient is not what its name
        says although nothing had told so until then: then it may have been measured so.
        """
        try:
            with self._cache.pinned(recipe.files):
                for digest in recipe.files:
                    with self.open(digest):  # whatever can be told from outside is mended before
                        pass
                return self._with(recipe.files, lambda: self._build(recipe, link, overlay))
        except Altered as error:
            raise Altered(
                f"{error.what}, perhaps before it was measured: nothing is made of it",
                faults=error.faults,
                mend="run the request again with --verify-exact, which downloads it and scores everything "
                "anew. Where that finds other scores, choose another STOCKPOT_STORE_URL, and check the disk",
            ) from error

    def _build(self, recipe: Recipe, link: Path | None, overlay: Overlay | None) -> Checkpoint:
        if overlay is None and recipe.overlay is not None:
            known = self._store.overlay(recipe.digest)
            overlay = None if known is None else Overlay(known)
        built = build(recipe, self._cache, overlay=overlay)
        if link is not None:
            self._cache.link(built.digest, link)
        return built

    def _with(self, digests: Sequence[Digest], work: Callable[[], T], tries: int = TRIES) -> T:
        """Work with checkpoints that are here: again, where another process evicted one meanwhile."""
        with self._cache.pinned(digests):
            for digest in digests:
                self._fetch(digest)
            try:
                return work()
            except NotCached:
                if tries == 1:
                    raise
        return self._with(digests, work, tries - 1)

    def _enter(self, digest: Digest, stack: ExitStack) -> WeightsFile:
        """Open the file. One that was altered counts as absent."""
        try:
            return stack.enter_context(self._cache.open(digest))
        except Altered as error:
            self._say(f"{error.what}, and downloaded again: {'; '.join(error.faults)}")
            raise NotCached(error.what, mend=error.mend) from error

    def _fetch(self, digest: Digest) -> None:
        if not self._cache.has(digest):
            download, mine = self._begin(digest)
            if mine:
                self._download(digest, download)
            download.result()

    def _begin(self, digest: Digest) -> tuple["Future[None]", bool]:
        """The download that brings this checkpoint, and whether the caller is to do it."""
        with self._lock:
            known = self._under_way.get(digest)
            return known or self._under_way.setdefault(digest, Future()), known is None

    def _download(self, digest: Digest, download: "Future[None]") -> None:
        try:
            if not self._cache.has(digest):  # another download may have ended before this one was begun
                self._read_again(digest)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            download.set_exception(error)
        else:
            download.set_result(None)
        finally:
            with self._lock:
                del self._under_way[digest]

    def _read_again(self, digest: Digest) -> None:
        if digest in self._makers:
            if (made := self._makers[digest]()) != digest:
                raise BadCheckpoint(f"{digest} is wanted, and made again it is {made}", mend=_RESTORE)
            return
        candidate = self._candidates[digest]
        found = self.read(candidate.source)
        self._store.remember_ingested(found)  # a request that starts anew sees the sweep as it is now
        if found.checkpoint is None or found.checkpoint.digest != digest:
            raise BadCheckpoint(
                f"{candidate.source.path} of run {candidate.run.name} ({candidate.run.run_id}) is not "
                f"what it was: {digest} is wanted, the artifact now holds "
                f"{found.checkpoint.digest if found.checkpoint else found.detail}",
                mend=_RESTORE,
            )

    def _remembered(self, source: WeightsSource) -> IngestedSource | None:
        """What reading this very file found, where that was good."""
        known = self._store.ingested(source.key)
        if known is None or known.fault is not None:
            return None
        return known if (known.size, known.run_ended) == (source.size, source.run_ended) else None


def _fault(
    source: WeightsSource, file: Path, reason: ExclusionReason, error: BadCheckpoint
) -> IngestedSource:
    """The error as a fact about the artifact: without the name of the local copy."""
    detail = "; ".join([error.what, *error.faults]).replace(f"{visible(str(file))}: ", "")
    return IngestedSource(source.key, source.size, "", None, reason, detail)
