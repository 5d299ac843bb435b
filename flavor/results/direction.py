"""Which values of a metric are better, by its name: known only where every word of the name is known.

A name is the noun of a metric (`auc`, `cross entropy loss`) with words that do not change what is good (`val`, `macro`,
`fold 3`). Any other word or sign may turn it round, or make another metric of it: then nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from flavor.records.counts import CENTRAL_PREFIX, POOLED
from flavor.records.merging import WEIGHTED

_Words = tuple[str, ...]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[_Words]:
    """Return what is listed in `text`, a noun on each line or after a comma, as tuples of words."""
    return frozenset(tuple(each.split()) for each in re.split(r"[,\n]", text) if each.strip())


_SCORED = _phrases("""
    accuracy, auc, auroc, auprc, ap, dice, f1, iou, jaccard, precision, recall, average precision, r2, silhouette
    balanced accuracy, roc auc, pr auc, rand, adjusted rand, mutual info, adjusted mutual info, normalized mutual info
    homogeneity, completeness, v measure, fowlkes mallows, bleu, rouge
""")
"""Better higher, also with `score` behind it, as in scikit-learn's `r2_score`."""
_HIGHER = (
    _SCORED
    | frozenset((*words, "score") for words in _SCORED)
    | _phrases("""
    acc, map, map50, map75, ap50, ap75, miou, mdice, mean iou, mean dice, dsc, dice coefficient, jaccard index
    sensitivity, specificity, ppv, npv, tpr, tnr, mcc, matthews corrcoef, kappa, c index, cindex, concordance index
    ndcg, mrr, ssim, psnr
""")
)
_MEASURED = _phrases("""
    mse, mae, rmse, mape, msle, log loss, logloss, brier, brier score, brier score loss
    squared error, mean squared error, root mean squared error, mean squared log error, root mean squared log error
    absolute error, mean absolute error, median absolute error, mean absolute percentage error, max error
""")
"""Better lower; and higher after `neg` as the first word of a name, as in scikit-learn's `neg_mean_squared_error`.

No other noun is turned by it: `neg_loss` and `negative_class_error` may be the loss of negative pairs, and the error of
a class.
"""
_OF_LOSSES = _phrases("""
    log, cross entropy, binary cross entropy, categorical cross entropy, bce, ce, nll, negative log likelihood, hinge
    huber, smooth l1, focal, squared, absolute, l1, l2, mse, mae, rmse, kl, kd, aux, cls, box, obj, dfl, reg, mask, dice
    iou, classification, regression, segmentation, detection, reconstruction, total
    brier, hamming, zero one, pinball, quantile, poisson, poisson nll, gaussian nll, log cosh, mape, msle
    triplet, contrastive, ctc, tversky, focal tversky, lovasz, cosine embedding, margin ranking, dice ce, dice focal
""")
_LOWER = (
    _MEASURED
    | frozenset((*words, "loss") for words in _OF_LOSSES)
    | _phrases("""
    loss, error, err, error rate, classification error, word error rate, character error rate, wer, cer, fpr, fnr
    cross entropy, binary cross entropy, crossentropy, bce, nll, negative log likelihood, perplexity, ppl, ece
""")
)
_NOUNS = {**dict.fromkeys(_HIGHER, 1), **dict.fromkeys(_LOWER, -1)}
_LONGEST = max(map(len, _NOUNS))
_NEGATED = ("neg", "negative")

_GROUPS = (
    _words("train training val valid validation test testing eval evaluation dev holdout"),
    _words("macro micro weighted balanced samples ovr ovo"),
    _OVER := _words("mean avg average median worst best lowest highest min max minimum maximum"),
    _OF := _words("local global central pooled federated personalized"),
)
"""Two words of one group may be a difference, as in `train/val loss`: then nothing is known."""
_COMPARED = _OVER | _OF
"""A hyphen before or after one of these may be a minus, as in `max-accuracy`."""
_LABELS = _words("top site client class label fold epoch round step iter batch task head rank")
"""Words that a number or a letter may follow: `top-5`, `class 3`, `site-a`."""
_MEANT = _words("epoch step")
"""Behind the noun these say over what it was taken, as Lightning's `val_loss_epoch`, but for `best_loss_epoch`."""
_BEHIND = (_LABELS - _MEANT) | {"cv"}
"""Behind the noun these are what is measured: `accuracy_rank` is a rank, `accuracy_cv` a coefficient of variation."""
_UNITS = _words("shot way step bit day year")
_COUNTED = _words("class classes label labels fold")
"""What a number may stand before: `5-shot`, `10-class`. `1-class auc` and `100-class auc` may be differences."""
_NEUTRAL = _LABELS.union(
    *_GROUPS,
    _words("total overall running per k cv cross validated basic metric metrics model digits roc pr"),
    _words("pixel voxel slice volume image patient sample token word char binary multiclass multilabel"),
)

_AT = re.compile(r"(?<=[a-z0-9])@\s*(?:[a-z]\s*=\s*)?\d+(?:\.\d+)?(?:\s*[-:]\s*\d+(?:\.\d+)?)?(?![\w.]|\s*-)")
"""What a metric is taken at: `mAP@50-95`, `recall@k=10`."""
_PERCENT = re.compile(r"\s*(?:%|\(%\)|\[%\])$")
_PARTS = re.compile(r"([a-z]+[0-9]*|[0-9]+)([\s_/.:]+|-|$)")
_LABELLED = re.compile(r"([a-z]+)[0-9]+")


class _Part(NamedTuple):
    """A word of a name, and the signs between it and the next one."""

    word: str
    sign: str


class _Noun(NamedTuple):
    """Where the noun of a metric stands among the words of a name."""

    first: int
    words: _Words

    @property
    def end(self) -> int:
        return self.first + len(self.words)


def direction_of(name: str) -> int:
    """Return 1 for a metric that is better higher, -1 for lower, and 0 where its name does not say so.

    `val_auc` is better higher, `train/loss` and `Loss/train` lower, `neg_mean_squared_error` higher. All of a name
    counts: `std/accuracy`, `1-auc` and `accuracy of lesions` say nothing. Of a pooled metric, which flavor names, the
    last part counts: the name of a label stands before it (`pooled/loss_of_sight/auc`).
    """
    name = name.removeprefix(CENTRAL_PREFIX).removesuffix(WEIGHTED)
    if name.startswith(POOLED):
        name = name.rpartition("/")[2]
    parts = _parts_of(name)
    if not parts:
        return 0
    nouns = _nouns_in(parts)
    if _is_filed(parts, nouns):
        parts = parts[nouns[0].end :]
        nouns = _nouns_in(parts)
    if len(nouns) != 1:
        return 0
    (noun,) = nouns
    negated = parts[0].word in _NEGATED and noun.first == 1 and noun.words in _MEASURED and _is_joined(parts[:1])
    others = [*parts[1 if negated else 0 : noun.first], *parts[noun.end :]]
    if not _are_neutral(parts, noun, first=1 if negated else 0) or _are_compared(others) or _subtracts(parts, noun):
        return 0
    return 1 if negated else _NOUNS[noun.words]


def _parts_of(name: str) -> list[_Part]:
    """Return the words of a name; [] where it has a sign with which something may be calculated."""
    text = _AT.sub("", _PERCENT.sub("", name.strip().lower()))
    found, at = [], 0
    while at < len(text):
        part = _PARTS.match(text, at)
        if part is None:
            return []
        found.append(_Part(part[1], part[2]))
        at = part.end()
    return found if found and not found[-1].sign else []


def _nouns_in(parts: Sequence[_Part]) -> list[_Noun]:
    """Return the nouns of metrics in a name, the longest that there are: `roc auc` before `auc`."""
    found, at = list[_Noun](), 0
    while at < len(parts):
        noun = next((each for size in range(_LONGEST, 0, -1) if (each := _noun_at(parts, at, size))), None)
        if noun is not None:
            found.append(noun)
        at = noun.end if noun is not None else at + 1
    return found


def _noun_at(parts: Sequence[_Part], at: int, size: int) -> _Noun | None:
    some = parts[at : at + size]
    words = tuple(each.word for each in some)
    return _Noun(at, words) if words in _NOUNS and _is_joined(some[:-1]) else None


def _is_joined(parts: Sequence[_Part]) -> bool:
    """Return whether these words and the next one are written as one phrase: `log_loss`, `log-loss`, `log loss`."""
    return all(each.sign in ("_", "-", " ") for each in parts)


def _is_filed(parts: Sequence[_Part], nouns: Sequence[_Noun]) -> bool:
    """Return whether a name stands below its own noun, as in `Accuracy/val_accuracy` and `Loss/cross_entropy_loss`."""
    if len(nouns) != 2 or nouns[0].first or parts[nouns[0].end - 1].sign != "/":
        return False
    own, other = nouns[0].words, nouns[1].words
    return other[-len(own) :] == own and _NOUNS[own] == _NOUNS[other]


def _are_neutral(parts: Sequence[_Part], noun: _Noun, *, first: int) -> bool:
    """Return whether all words of a name but its noun are known to change nothing; the first ones are not looked at."""
    others = (at for at in range(first, len(parts)) if not noun.first <= at < noun.end)
    return all(_is_neutral(parts, at) for at in others) and not _is_of_label(parts, noun)


def _is_of_label(parts: Sequence[_Part], noun: _Noun) -> bool:
    """Return whether a word behind the noun makes it another metric: `best_accuracy_epoch` is the number of an epoch.

    It does not where a number or a letter says which one, as in `accuracy_class_3`.
    """
    is_best = any(each.word in _OVER for each in parts)
    return any(
        (parts[at].word in _BEHIND or (is_best and parts[at].word in _MEANT))
        and not (at + 1 < len(parts) and _is_label(parts, at + 1))
        for at in range(noun.end, len(parts))
    )


def _is_neutral(parts: Sequence[_Part], at: int) -> bool:
    word = parts[at].word
    label = _LABELLED.fullmatch(word)
    if word in _NEUTRAL or (label is not None and label[1] in _LABELS):
        return True
    return _is_label(parts, at) or _is_amount(parts, at) or (word in _UNITS and at > 0 and _is_amount(parts, at - 1))


def _is_label(parts: Sequence[_Part], at: int) -> bool:
    """Return whether a number or letter names a class, a site and the like: `fold/1/loss`, and not `fold/1-loss`."""
    word, sign = parts[at]
    if at == 0 or parts[at - 1].word not in _LABELS or not (word.isdecimal() or len(word) == 1):
        return False
    return sign != "-" or parts[at - 1].sign == "-"


def _is_amount(parts: Sequence[_Part], at: int) -> bool:
    """Return whether a number says how much of a unit there is, as in `5-shot`."""
    word, sign = parts[at]
    if (
        not word.isdecimal()
        or at + 1 == len(parts)
        or sign not in ("-", "_", " ")
        or (at and parts[at - 1].sign == "-")
    ):
        return False
    unit = parts[at + 1].word
    return unit in _UNITS or (unit in _COUNTED and int(word) not in (1, 100))


def _are_compared(parts: Sequence[_Part]) -> bool:
    """Return whether two words of one group are among these."""
    words = frozenset(each.word for each in parts)
    return any(len(words & group) > 1 for group in _GROUPS)


def _subtracts(parts: Sequence[_Part], noun: _Noun) -> bool:
    """Return whether a hyphen may be a minus, because it stands beside a word such as `max` or `global`."""
    compared = [each.word in _COMPARED and not noun.first <= at < noun.end for at, each in enumerate(parts)]
    return any(each.sign == "-" and (compared[at] or compared[at + 1]) for at, each in enumerate(parts))
