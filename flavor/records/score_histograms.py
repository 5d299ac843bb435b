"""ROC AUC and average precision of all sites together, from histograms of the scores of both classes.

Both are the values that scikit-learn's `roc_auc_score` and `average_precision_score` have for scores of which only the
bin is known, so that examples of one bin are ties. Where all examples of a bin have one score, or no bin has more than
one example, they are the values for the scores themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_ADDED_UP = 16
"""Positive examples of a bin of which the smallest average precision is added up; that of the others is estimated."""


def auc(positives: Sequence[int], negatives: Sequence[int]) -> tuple[float | None, float | None]:
    """Return the area under the ROC curve and its largest error; None for both where one class has no examples.

    `positives` and `negatives` have the numbers of examples by bin, from the lowest scores to the highest. The area is
    the share of pairs of a positive and a negative example that the scores order rightly, ties counting one half. With
    P positives and N negatives, and P_b and N_b of them in bin b:

        AUC = Σ_b P_b (Σ_{c<b} N_c + N_b / 2) / (P N)

    Pairs of different bins are exact. The P_b N_b pairs of one bin count one half, and really between nothing and one,
    so that the error is at most Σ_b P_b N_b / (2 P N).
    """
    below = doubled = tied = 0
    for positive, negative in zip(positives, negatives, strict=True):
        doubled += positive * (2 * below + negative)
        tied += positive * negative
        below += negative
    pairs = 2 * sum(positives) * below
    return (doubled / pairs, tied / pairs) if pairs else (None, None)


def average_precision(positives: Sequence[int], negatives: Sequence[int]) -> tuple[float | None, float | None]:
    """Return the average precision and its largest error; None for both where there is no positive example.

    scikit-learn's is Σ_k (R_k − R_{k−1}) Q_k over all thresholds, with recall R_k and precision Q_k: the mean over the
    positive examples of the precision among the examples with this score or a higher one. Let T positives and F
    negatives be in the bins above a bin with p positives and n negatives. For a positive of this bin, t of its p
    positives and f of its n negatives have its score or a higher one, and it contributes

        (T + t) / (T + t + F + f),

    which grows with t and falls with f. So the contribution of the bin is

    - with ties, as it is computed here: t = p, f = n:      p (T + p) / (T + p + F + n)
    - at most, positives tied above the rest: t = p, f = 0:  p (T + p) / (T + p + F)
    - at least: the k-th highest has t ≥ k and f ≤ n:        Σ_{k=1..p} (T + k) / (T + k + F + n)

    The last is p − G Σ_k 1 / (T + G + k) with G = F + n, and 1 / x is convex, so that each term of that sum is at most
    its mean over [k − ½, k + ½]: those after the first j add up to at most ln(1 + (p − j) / (T + G + j + ½)). The error
    is the larger distance of the sums of the three over the bins, divided by the number of positives.
    """
    above, below = 0, 0  # T and F
    tied, most, least = list[float](), list[float](), list[float]()
    for p, n in zip(reversed(positives), reversed(negatives), strict=True):
        if p:
            tied.append(p * (above + p) / (above + p + below + n))
            most.append(p * (above + p) / (above + p + below))
            least.append(_least(above, below + n, p))
        above, below = above + p, below + n
    if not above:
        return None, None
    value = math.fsum(tied)
    return value / above, max(math.fsum(most) - value, value - math.fsum(least), 0.0) / above


def _least(above: int, others: int, p: int) -> float:
    """Return Σ_{k=1..p} (T + k) / (T + k + G), or a little less, for T `above` and G `others`."""
    if not others:
        return p
    first = min(p, _ADDED_UP)
    added_up = math.fsum((above + k) / (above + k + others) for k in range(1, first + 1))
    rest = p - first
    return added_up + max(0.0, rest - others * math.log1p(rest / (above + first + others + 0.5)))
