"""95 % intervals that stay within their scale, clustered by image.

A *mean* of credits between 0 and 1 gets Wilson's interval with the effective number of samples in place of their
number: mean * (1 - mean) over the variance of the mean. That variance is the one between clusters, or the one between
samples where it is larger, so that a few clusters that happen to agree do not pass for certainty. Where clusters hold
several samples the effective number shrinks by Korn and Graubard's ratio of Student quantiles. For independent answers
that are right or wrong this is Wilson's interval itself. Where all credits are equal there is no variance to see: what
was never seen in so many clusters may still happen as often as Wilson's interval says for a share of 0.

A *weighted sum* (a mean over splits, a sum of two scores, a difference) recovers its limits from those of its parts and
from their correlation (MOVER), which cannot leave the scale either. A mean of credits between -1 and 1, such as a
difference of two runs, is the mean of what is above 0 less the mean of what is below.

Sources: Wilson, JASA 22 (1927) 209; Korn and Graubard, Survey Methodology 24 (1998) 193, effective number and Student
quantiles; Franco et al., J. Survey Statistics and Methodology 7 (2019) 334, Wilson's among seven such intervals; Zou
and Donner, Statistics in Medicine 27 (2008) 1693, MOVER.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors on each side of an interval of a normal distribution."""
_ROUNDING = 1e-9
"""What a credit computed in floating point may lie outside its scale."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure, how far off it may be, and what moves it.

    Attributes:
        value: the figure.
        low: lower end of its interval; not above the value.
        high: upper end; not below the value.
        influence: cluster -> by how much its samples move the figure; the root of the sum of squares is the standard
            error, the inner product of two estimates' their covariance.
    """

    value: float
    low: float
    high: float
    influence: Mapping[Hashable, float]

    @property
    def stderr(self) -> float:
        """Standard error, from the variance between clusters."""
        return math.sqrt(sum(part * part for part in self.influence.values()))


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A mean of credits.

    Args:
        values: between 0 and 1, at least one.
        clusters: what each sample depends on (its image); samples count as independent if left out.

    Raises:
        ValueError: there is no value, or one outside 0 to 1.
    """
    if not values or min(values) < -_ROUNDING or max(values) > 1.0 + _ROUNDING:
        raise ValueError("a mean of credits needs at least one, all between 0 and 1")
    average = sum(values) / len(values)
    influence: dict[Hashable, float] = defaultdict(float)
    for index, value in enumerate(values):
        influence[clusters[index] if clusters is not None else index] += (value - average) / len(values)
    between_clusters = sum(part * part for part in influence.values())
    between_samples = sum((value - average) ** 2 for value in values) / len(values) ** 2
    variance = 0.0 if min(values) == max(values) else max(between_clusters, between_samples)
    low, high = _wilson(min(max(average, 0.0), 1.0), variance, len(values), len(influence))
    return Estimate(value=average, low=min(low, average), high=max(high, average), influence=influence)


def signed_mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A mean of credits between -1 and 1, such as differences of two runs; see `mean`."""
    above, below = mean([max(v, 0.0) for v in values], clusters), mean([max(-v, 0.0) for v in values], clusters)
    return weighted_sum([(1.0, above), (-1.0, below)])


def weighted_sum(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """A sum of estimates, each times its weight; equal clusters of two parts are the same thing."""
    value = math.fsum(weight * part.value for weight, part in parts)
    influence: dict[Hashable, float] = defaultdict(float)
    for weight, part in parts:
        for cluster, moved in part.influence.items():
            influence[cluster] += weight * moved
    together = _correlations(parts)
    below = np.array([w * (e.value - e.low if w > 0 else e.value - e.high) for w, e in parts])
    above = np.array([w * (e.high - e.value if w > 0 else e.low - e.value) for w, e in parts])
    down, up = (math.sqrt(max(0.0, float(d @ together @ d))) for d in (below, above))
    return Estimate(value=value, low=value - down, high=value + up, influence=influence)


def _correlations(parts: Sequence[tuple[float, Estimate]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Correlations of the weighted parts (parts, parts), 1 on the diagonal; 0 with a part that nothing moves."""
    places: dict[Hashable, int] = {}
    for _, part in parts:
        for cluster in part.influence:
            places.setdefault(cluster, len(places))
    moved = np.zeros((len(parts), len(places)))
    for row, (weight, part) in enumerate(parts):
        for cluster, by in part.influence.items():
            moved[row, places[cluster]] = weight * by
    sizes = np.linalg.norm(moved, axis=1, keepdims=True)
    unit = np.divide(moved, sizes, out=np.zeros_like(moved), where=sizes > 0)
    together: np.ndarray[tuple[int, int], np.dtype[np.float64]] = unit @ unit.T
    np.fill_diagonal(together, 1.0)
    return together


def _wilson(average: float, variance: float, samples: int, clusters: int) -> tuple[float, float]:
    """Ends of the interval of a mean between 0 and 1."""
    if variance <= 0.0:  # all credits are equal
        unseen = Z * Z / (clusters + Z * Z)
        return average * (1.0 - unseen), average + (1.0 - average) * unseen
    spread = average * (1.0 - average)
    ratio = 1.0 if clusters == samples else student(samples - 1) / student(clusters - 1)
    effective = spread / variance * ratio * ratio
    if effective <= 0.0:  # a single cluster
        return 0.0, 1.0
    extra = Z * Z / effective
    half = math.sqrt(extra * spread + extra * extra / 4)
    return max(0.0, (average + extra / 2 - half) / (1 + extra)), min(1.0, (average + extra / 2 + half) / (1 + extra))


@lru_cache(maxsize=4096)
def student(freedom: int) -> float:
    """Quantile of Student's distribution; infinite without any degree of freedom."""
    if freedom < 1:
        return math.inf
    from scipy.special import stdtrit  # a tenth of a second that only clustered scores need

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
