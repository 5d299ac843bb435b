"""Which values of a metric are better, by the words of its name: of a name that may mean either, nothing is known."""

from __future__ import annotations

import re

from flavor.records.counts import CENTRAL_PREFIX, POOLED

_HIGHER = frozenset(
    {"acc", "accuracy", "auc", "auroc", "auprc", "ap", "map", "dice", "f1", "iou", "jaccard", "precision", "recall"}
    | {"sensitivity", "specificity", "r2", "mcc", "kappa", "bleu", "rouge"}
)
_LOWER = frozenset(
    {"loss", "error", "err", "mse", "mae", "rmse", "mape", "nll", "perplexity", "ppl", "brier", "ece", "wer", "cer"}
)
_SCORE = "score"
"""Better higher, unless another word says what is scored: as in scikit-learn's `brier_score_loss` and `r2_score`."""
_METRICS = _HIGHER | _LOWER | {_SCORE}
_NEGATED = frozenset({"neg", "negative", "negated", "minus"})
"""As the first word they turn a loss round, as in scikit-learn's `neg_mean_squared_error`; so does a minus in front.

Elsewhere, and before what is better higher, they may name a class, or the pairs of a contrastive loss: nothing is known
of `negative_recall`, and of `contrastive/neg_loss`.
"""
_UNSAID = frozenset(
    {"std", "stddev", "sd", "var", "variance", "sem", "distance", "scale", "gap", "diff", "difference", "ratio"}
    | {"bound", "fid", "kid", "davies", "bouldin", "inverse", "inverted", "d2", "deviance", "count", "number"}
)
"""Words with which a name does not say what is good: `accuracy_std` is no accuracy, `loss_scale` no loss."""
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "eval", "evaluation", "dev"})
"""Words for the data that a metric is of. They may stand before it or after it, as in `val/loss` and `Loss/val`."""

_KINDS = frozenset(
    {"macro", "micro", "weighted", "balanced", "total", "global", "local", "roc", "pr", "top", "k", "top1", "top5"}
    | {"pixel", "word", "char", "class", "shot", "way", "one", "log", "cross", "entropy", "hinge", "huber", "focal"}
    | {"squared", "absolute", "percentage", "l1", "l2", "bce", "ce", "kl", "kd", "aux", "reg", "cls", "box", "gan"}
    | {"contrastive", "triplet", "reconstruction", "classification", "regression", "segmentation", "detection"}
)
"""Words that say, joined by a hyphen, of which kind a metric is, as in `log-loss`. They name no value of their own."""

_DASHES = str.maketrans(
    dict.fromkeys(
        "\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{FIGURE DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{SMALL HYPHEN-MINUS}"
        "\N{FULLWIDTH HYPHEN-MINUS}",
        "-",
    )
)
_NO_CALCULATION = re.compile(
    r"(?<=[^\W_])@\s*(?:[a-z]\s*=\s*)?\d+(?:\.\d+)?(?:\s*[-:]\s*\d+(?:\.\d+)?)?(?![\w.]|\s*-)"  # mAP@50-95, recall@k=10
    r"|[(\[]\s*(?:class|label)\s*[:=]?\s*-?\d+\s*[)\]]"  # dice (class -1)
    r"|(?<![\w.])\d+-(?=(?:shot|way|fold|step|bit|day|year)(?![^\W_]))"  # 5-shot/accuracy
    r"|(?<![\w.])(?!1-|100-)\d+-(?=(?:class|classes|label)(?![^\W_]))"  # 2-class accuracy, and not 1-class accuracy
)
"""Numbers of a name that nothing is calculated with."""
_WORD = re.compile(r"[^\W_]+")
_COMPLEMENT = re.compile(
    rf"(?:^|[/([])\s*(?:(?:{'|'.join(sorted(_PARTS))})[\s_.:|]+)*(?:1|1\.0*|100)\s*%?\s*-"  # 1-val/auc, val/1 - auc
    r"|^\s*1\s*/"  # 1/loss
)
_MINUS = re.compile(r"(?:^|[/_.:|([])\s*-|\s-(?=\S)")
"""A minus that belongs to what follows: `-val/loss`, `val/-loss`, `val -loss`; not `val-loss`, and not `val - loss`."""
_NUMBER = re.compile(r"(?:^|[\W_])(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*%?\s*-|(?:^|[^\w/.-])\d[\d.]*\s*/")
"""A number from which something is taken, or that is divided: `2-auc`, `(0.5 - auc)`, `val 1/auc`; not `fold/1/auc`."""
_NAMED_NUMBER = re.compile(r"top[-_ ]?$|[a-z]-$")
"""What stands before a number that is part of a name: `top-5-accuracy`, `fold-2-auc`."""
_OPERATOR = re.compile(r"[*^=~!<>]|[^\w\s)\]%/_.:|(\[-]\s*-")
"""What makes another metric of one, or a minus after something that no name has before it: `-1*loss`, `{-loss}`."""
_TAKEN = re.compile(r"([^\W_]+)([\s)\]%]*)-(?=(\s*)(.*))")
"""What stands before a minus, the gap before it, the gap behind it, and all that follows."""
_OF_A_WORD = re.compile(r"\s*[([]*\s*[^\W\d_]")


def direction_of(name: str) -> int:
    """Return 1 for a metric that is better higher, -1 for lower, and 0 where its name does not say so.

    `val_auc` is better higher, `train/loss` and `Loss/train` lower, `neg_mean_squared_error` and `-val/loss` higher.
    All of a name counts, also what stands before a `/`: `std/accuracy` and `1-val/auc` are no accuracies. Of a pooled
    metric, which flavor names, the last part counts: the name of a label stands before it (`pooled/loss_of_sight/auc`).
    """
    name = name.removeprefix(CENTRAL_PREFIX)
    if name.startswith(POOLED):
        name = name.rpartition("/")[2]
    text = _NO_CALCULATION.sub("", name.lower().translate(_DASHES)).strip()
    words = frozenset(_WORD.findall(text))
    lower, higher = bool(words & _LOWER), bool(words & _HIGHER)
    if words & _UNSAID or (lower and higher) or not words & _METRICS or _COMPLEMENT.search(text) or _computes(text):
        return 0
    sign = -1 if lower else 1
    if words & _NEGATED:
        if not lower or not _negates(text):
            return 0
        sign = 1
    minuses = list(_MINUS.finditer(text))
    if not minuses:
        return sign
    first = min(found.start() for found in _WORD.finditer(text) if found[0] in _METRICS)
    end = minuses[0].end()
    return -sign if len(minuses) == 1 and end <= first and _OF_A_WORD.match(text, end) else 0  # not of class_-1/auc


def _computes(text: str) -> bool:
    """Return whether a metric is made of a number, or of others, in a way that says nothing of what is good."""
    numbers = (found for found in _NUMBER.finditer(text) if not _is_named(text, found))
    return bool(_OPERATOR.search(text)) or any(numbers) or _subtracts(text)


def _is_named(text: str, number: re.Match[str]) -> bool:
    """Return whether a number is part of a name, as in `top-5-accuracy`, and nothing is taken from it."""
    return number[1] is not None and _NAMED_NUMBER.search(text, 0, number.start(1)) is not None


def _subtracts(text: str) -> bool:
    """Return whether a metric is taken from something: `train_loss - val_loss`, `baseline - loss`, `max-accuracy`."""
    parts = [_METRICS.intersection(_WORD.findall(part)) for part in text.split("-")]
    if len(frozenset().union(*parts)) < sum(map(len, parts)):
        return True
    return any(_is_taken_from(*found.groups()) for found in _TAKEN.finditer(text))


def _is_taken_from(word: str, before: str, behind: str, rest: str) -> bool:
    """Return whether what follows a minus is a metric that is taken from this word, and not one that it is part of."""
    if word.isdecimal() or word in _PARTS or word == "fold":
        return False  # `_NUMBER` knows of numbers
    following = [each for each in _WORD.findall(rest) if each not in _PARTS]
    if before or behind:
        return not _METRICS.isdisjoint(following)
    if word in _METRICS:
        return following[:1] != [] and following[0] in _METRICS - {"score", "loss", "error"}
    return word not in _KINDS | _NEGATED and following[:1] != [] and following[0] in _METRICS


def _negates(text: str) -> bool:
    """Return whether the whole name begins with a word for a minus: `neg_log_loss`, and not `contrastive/neg_loss`."""
    return _WORD.findall(text)[0] in _NEGATED
