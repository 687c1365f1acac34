"""Input drift: whether what a server is asked still looks like what its model was trained on.

Measured by the population stability index over the bins of the training data, which is in common use with fixed
limits (0.1, 0.2) that do not depend on the number of rows. For few rows chance alone exceeds them, so the index must
exceed its quantile under "no drift" as well (Yurdakul and Naranjo, "Statistical properties of the population stability
index", Journal of Risk Model Validation 14(4), 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from longshore.errors import MissingExtra, MonitorError
from longshore.packaging import FeatureBins

__all__ = ["LIMIT", "MIN_ROWS", "DriftReport", "FeatureDrift", "Verdict", "assess", "critical_psi", "psi"]

Verdict = Literal["none", "drift", "not-enough-data"]

LIMIT: Final = 0.2
"""An index up to this is no drift worth acting on, however many rows show it."""

MIN_ROWS: Final = 50
"""Below so many rows nothing is said."""

_ALPHA: Final = 0.05
_PRIOR: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """What was found for one feature.

    Args:
        name: The feature.
        psi: Population stability index; 0.0 if no row was counted.
        critical: What the index stays below by chance, with probability ``1 - 0.05 / features``.
        drifted: Whether the index is over both :data:`LIMIT` and ``critical``, from enough rows.
        rows: Rows counted by the server.
        labels: What each bin holds.
        expected: Share of the training rows in each bin.
        actual: Share of the counted rows in each bin.
    """

    name: str
    psi: float
    critical: float
    drifted: bool
    rows: int
    labels: tuple[str, ...]
    expected: tuple[float, ...]
    actual: tuple[float, ...]

    @property
    def largest_change(self) -> str:
        """The bin whose share changed most, in words; empty if no row was counted."""
        if not self.rows:
            return ""
        at = max(range(len(self.labels)), key=lambda i: abs(self.actual[i] - self.expected[i]))
        return f"{self.labels[at]}: {self.expected[at]:.0%} in training, {self.actual[at]:.0%} now"


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What was found for a model.

    Args:
        verdict: ``drift`` if any feature has drifted, ``not-enough-data`` if too few rows were counted, else ``none``.
        features: By feature, the highest index first.
        rows: Rows counted by the server.
    """

    verdict: Verdict
    features: tuple[FeatureDrift, ...]
    rows: int

    @property
    def summary(self) -> str:
        """The verdict as one sentence."""
        if self.verdict == "not-enough-data":
            return f"{self.rows} rows were counted, {MIN_ROWS} are needed to tell drift from chance"
        drifted = [feature.name for feature in self.features if feature.drifted]
        if drifted:
            return f"{len(drifted)} of {len(self.features)} features drifted in {self.rows} rows: {', '.join(drifted)}"
        return f"none of {len(self.features)} features drifted in {self.rows} rows"

    def to_html(self) -> str:
        """A self-contained page for people."""
        from longshore.monitoring.drift_page import drift_html

        return drift_html(self)

    def to_markdown(self) -> str:
        """The same as Markdown: the verdict and a table."""
        from longshore.monitoring.drift_page import drift_markdown

        return drift_markdown(self)


def psi(expected_counts: Sequence[float], actual_counts: Sequence[float]) -> float:
    """Population stability index: the sum over bins of ``(a - e) * ln(a / e)`` with ``a`` and ``e`` as shares.

    Half a row is added to each bin on both sides (the Jeffreys prior), but for bins that are empty on both, which say
    nothing: the logarithm of 0 has no value, and that of a small count is far off. Without it, of 8 features in 10
    equal bins that do not drift, 50 to 100 rows exceed :func:`critical_psi` 2 to 3 times as often as they should.
    For many rows it makes no difference.

    Args:
        expected_counts: Rows per bin to compare with.
        actual_counts: Rows per bin now.

    Returns:
        The index, 0.0 for equal shares; 0.0 also if one side has no rows.

    Raises:
        ValueError: If the two do not have the same number of bins.
    """
    pairs = [(e, a) for e, a in zip(expected_counts, actual_counts, strict=True) if e or a]
    expected_rows, actual_rows = sum(e for e, _ in pairs), sum(a for _, a in pairs)
    if not expected_rows or not actual_rows:
        return 0.0
    added = _PRIOR * len(pairs)
    total = 0.0
    for e, a in pairs:
        e_share, a_share = (e + _PRIOR) / (expected_rows + added), (a + _PRIOR) / (actual_rows + added)
        total += (a_share - e_share) * math.log(a_share / e_share)
    return total


def critical_psi(expected_rows: int, actual_rows: int, bins: int, *, alpha: float) -> float:
    """What the index stays below with probability ``1 - alpha`` if both sides come from the same distribution.

    The index is then distributed as ``(1/n + 1/m)`` times chi-squared with ``bins - 1`` degrees of freedom
    (Yurdakul and Naranjo, 2020).

    Args:
        expected_rows: Rows compared with, *n*.
        actual_rows: Rows now, *m*.
        bins: Number of bins in use, at least 1; a single bin cannot differ and gives 0.0.
        alpha: Probability of exceeding it by chance.
    """
    try:
        # scipy.stats has the same function and takes four times as long to import
        from scipy.special import chdtri
    except ModuleNotFoundError as error:
        raise MissingExtra("measuring drift", "scipy", "monitor") from error
    if bins < 2:
        return 0.0
    return (1 / expected_rows + 1 / actual_rows) * float(chdtri(bins - 1, alpha))


def assess(baseline: Sequence[FeatureBins], actual: Mapping[str, Sequence[int]]) -> DriftReport:
    """Compare what a server was asked with what its model was trained on.

    A feature has drifted if its index is over :data:`LIMIT` and over what chance gives at a level of 5 % divided by the
    number of features (Bonferroni), from at least :data:`MIN_ROWS` rows.

    Args:
        baseline: The training data in bins, from the model card.
        actual: Counts per bin by feature; bins and features that are missing have counted nothing.

    Raises:
        MonitorError: If a feature has counts for more bins than the baseline: they are of another model.
    """
    alpha = _ALPHA / max(1, len(baseline))
    features = [_feature(bins, actual.get(bins.name, ()), alpha) for bins in baseline]
    features.sort(key=lambda feature: (not feature.drifted, -feature.psi, feature.name))
    rows = max((feature.rows for feature in features), default=0)
    verdict: Verdict = "drift" if any(f.drifted for f in features) else "none"
    return DriftReport(verdict="not-enough-data" if rows < MIN_ROWS else verdict, features=tuple(features), rows=rows)


def _feature(bins: FeatureBins, counted: Sequence[int], alpha: float) -> FeatureDrift:
    if len(counted) > bins.size:
        raise MonitorError(
            f"the server counted {len(counted)} bins of feature {bins.name!r}, the model's card has {bins.size}: "
            "it serves another model than the one it is compared with"
        )
    actual = (*counted, *([0] * (bins.size - len(counted))))
    trained, rows = sum(bins.counts), sum(actual)
    index = psi(bins.counts, actual)
    used = sum(1 for e, a in zip(bins.counts, actual, strict=True) if e or a)
    critical = critical_psi(trained, rows, used, alpha=alpha) if trained and rows else 0.0
    return FeatureDrift(
        name=bins.name,
        psi=index,
        critical=critical,
        drifted=rows >= MIN_ROWS and index > LIMIT and index > critical,
        rows=rows,
        labels=bins.labels,
        expected=_shares(bins.counts),
        actual=_shares(actual),
    )


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    total = sum(counts)
    return tuple(count / total if total else 0.0 for count in counts)
