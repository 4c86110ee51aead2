"""Intervals of several domains that all hold at once: so one may look for the worst of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stockpot.entities import Comparison
from stockpot.statistics.comparison import Pair, carried_by_many, compare, origins_apart
from stockpot.statistics.intervals import (
    FEWEST_FOR_RESAMPLING,
    FEWEST_THAT_DIFFER,
    RESAMPLES,
    SEED,
    Origins,
)

MAXIMUM = "maximum"
"""The method of intervals from the greatest studentised deviation of all domains."""


def simultaneous(pairs: Mapping[str, Pair], *, level: float = 0.95) -> dict[str, Comparison]:
    """Compare each domain's mean, with intervals that all hold at once in `level` of all cases: no domain is
    worse than the least of their lower ends.

    `pairs` as in `compare_mixture`. Of m domains, those whose origins tell enough share one critical value:
    the quantile of the greatest studentised deviation of them, under one resampling of origins for all
    (stratified as in `compare_mixture`), for each side. Over 1000 distinct origins are not resampled: their
    deviations are drawn from Student's t, correlated as the origins are. Every other domain has its own
    interval (`compare`) of the level 1 - (1 - level) / m: those of fewer than 50 origins, those where fewer
    than 10 differ or few carry the difference, and metrics. So do all where only one is left.

    No interval is narrower than `compare`'s of `level`. A domain of too few origins has none, and then
    nothing is known of the worst.

    Source: Westfall and Young, "Resampling-Based Multiple Testing" (1993); Romano and Wolf, "Exact and
    approximate stepdown methods for multiple hypothesis testing", Journal of the American Statistical
    Association 100 (2005), for the studentised maximum; Hothorn, Bretz and Westfall, "Simultaneous inference
    in general parametric models", Biometrical Journal 50 (2008), for correlated t.

    Raises ValueError as `compare` does.
    """
    own = 1 - (1 - level) / max(1, len(pairs))
    telling = [domain for domain, pair in pairs.items() if _tells(pair)]
    together = {domain: pairs[domain] for domain in telling} if len(telling) > 1 else {}
    found = {
        domain: replace(
            compare(domain, before, after, groups=groups, level=level if domain in together else own),
            level=level,
            mcnemar_p=None,
        )
        for domain, (before, after, groups) in pairs.items()
    }
    if not together:
        return found
    origins = origins_apart(together)
    below, above = _critical(origins, (1 - level) * len(together) / len(pairs) / 2)
    for domain, error in zip(together, _errors(origins), strict=True):
        alone = found[domain]
        low = min(alone.low, alone.difference - below * error)
        high = max(alone.high, alone.difference + above * error)
        found[domain] = replace(alone, low=low, high=high, method=MAXIMUM)
    return found


def _tells(pair: Pair) -> bool:
    """Whether a domain's origins tell enough to be resampled with those of others."""
    import numpy as np

    origins = origins_apart({"": pair})
    if pair[0].metric is not None or not np.isfinite(origins.sums).all():
        return False
    enough = origins.count >= FEWEST_FOR_RESAMPLING and origins.differing >= FEWEST_THAT_DIFFER
    return enough and carried_by_many(origins)


def _critical(origins: Origins, tail: float) -> tuple[float, float]:
    """So many standard errors, below and above: the greatest deviation of all domains is more with the chance
    `tail`.
    """
    import numpy as np

    deviations = _correlated(origins) if origins.many_kinds else _resampled(origins)
    below, above = (np.quantile(side.max(axis=1), 1 - tail) for side in (deviations, -deviations))
    return float(below), float(above)


def _resampled(origins: Origins) -> Any:
    """Studentised deviations, ``[resamples, domains]``: each resample has an error of its own."""
    import numpy as np

    sums, sizes = np.split(origins.kinds[0], 2, axis=1)
    residuals = sums - sizes * (origins.sums.sum(axis=1) / origins.sizes.sum(axis=1))
    columns = (residuals, sizes, residuals**2, residuals * sizes, sizes**2)
    r, n, rr, rn, nn = np.split(origins.drawn(np.hstack(columns)), len(columns), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no difference
        moved = r / n
        deviations = moved * n / np.sqrt(np.maximum(rr - 2 * moved * rn + moved**2 * nn, 0))
    return np.nan_to_num(deviations, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _correlated(origins: Origins) -> Any:
    """The same from Student's t, each domain with one degree of freedom less than it has origins."""
    import numpy as np

    rng, residuals = np.random.default_rng(SEED), _residuals(origins)
    domains = len(residuals)
    normal = rng.multivariate_normal(np.zeros(domains), np.corrcoef(residuals), RESAMPLES, method="eigh")
    freedom = (origins.sizes > 0).sum(axis=1) - 1
    return normal / np.sqrt(rng.chisquare(freedom, (RESAMPLES, domains)) / freedom)


def _errors(origins: Origins) -> list[float]:
    """The standard error of each domain's mean: of a ratio of sums, linearised."""
    import numpy as np

    errors: list[float] = (
        np.sqrt(np.square(_residuals(origins)).sum(axis=1)) / origins.sizes.sum(axis=1)
    ).tolist()
    return errors


def _residuals(origins: Origins) -> Any:
    """``[domains, origins]``: what each adds to the sum beyond what so many examples add on average."""
    means = origins.sums.sum(axis=1, keepdims=True) / origins.sizes.sum(axis=1, keepdims=True)
    return origins.sums - means * origins.sizes
