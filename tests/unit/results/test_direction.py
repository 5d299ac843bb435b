"""Which values of a metric are better: known where every word of its name is known, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.results import direction
from flavor.results.direction import direction_of

HIGHER = """
    val_auc, r2_score, silhouette score, f1-score, neg_mean_squared_error, neg_log_loss, negative-log-loss, neg-mse
    neg_brier_score, neg_rmse, neg_root_mean_squared_log_error, accuracy/test, Accuracy/val_accuracy, top-1-accuracy
    top-5-accuracy, top1-accuracy, fold-2-auc, 5-shot/accuracy, 2-class accuracy, 3-way accuracy, 1-year auc
    mAP@50-95, recall@k=10, acc@1, macro-f1, f1-macro, roc-auc, top-k-accuracy, site-a/auc, cross-validated accuracy
    accuracy (%), accuracy (weighted), central/accuracy, central/pooled/error of sight/auc, pooled/loss_of_sight/auc
    pooled/basic/accuracy, basic/f1, worst_accuracy, local_accuracy, mean dice, mean-dice, mIoU, c-index, dice/class 3
    Accuracy/balanced_accuracy, test_mean_macro_f1, val_acc_epoch, best_accuracy_epoch_3, accuracy_class_3, auc/site-a
"""
LOWER = """
    Loss/train, loss/val, Loss/train_loss, val-loss, train/loss, brier_score_loss, brier_score, mean_squared_error
    fold/1/loss, fold_2/loss, client-3/loss, log-loss, cross-entropy-loss, mse-loss, brier-score, train-loss
    total-loss, error_rate, word error rate, perplexity, negative log likelihood, dice_loss, Loss/cross_entropy_loss
    train/box_loss, central/loss, pooled/accuracy/ece, max_error, min_loss, epoch_loss
    train_loss_step, min_loss_fold_2, brier_loss, val/brier-loss, hamming_loss, zero_one_loss, mean_pinball_loss
"""
UNKNOWN = """
    not_accuracy; not accuracy; non_accuracy; not/accuracy; \N{NOT SIGN}accuracy; oneminus_auc; one-auc; One - AUC
    accuracy_drop; auc_drop; accuracy_decrease; misclassification_accuracy; lost_accuracy; flipped_auc; target less auc
    auc below target; accuracy (lower is better); risk_score; toxicity_score; negative_sampling_loss; neg_pair_loss
    neg_pairs_loss; neg_cls_loss; negative_class_error; neg_loss_weight; loss_reduction; error_reduction
    loss_improvement; inv_loss; reciprocal_loss; flip_loss; loss (sign flipped); loss (higher is better); error_free
    no_error_rate; brier_skill_score; contrastive/neg_loss; 1-val/auc; std/accuracy; train_loss-val/loss; rpn/neg_loss
    gap/loss; inverse/loss; target - val/auc; val/neg_rmse; neg_loss; neg/loss; neg_error; minus_loss

    accuracy loss; epochs; 1-accuracy; 1 - auc; accuracy_std; loss_scale; fid_score; recall_neg; f1_negative
    negative_recall; precision/neg; neg_accuracy; loss_neg; 1 - test/accuracy; val_1-auc; mean(1-auc); 100 - accuracy
    1/loss; loss/neg; gap/accuracy; variance/loss; Loss/dice; val/-loss/-x; class_-1/accuracy; dice (class -1)
    train_loss - val_loss; val/auc-train/auc; loss -val; -1*loss; neg/val/accuracy; val/1-accuracy
    accuracy_minus_baseline; false_negative_error; (1-accuracy); 1.0-accuracy; 1.-auc; 100-accuracy; 2-accuracy
    0.5-auc; 1e0-auc; {1-auc}; val, 1-auc; model_1-auc; 0 - loss; {-loss}; val,-loss; val=-loss; loss*-1; auc^-1
    val 1/auc; (1/loss); 1.0/loss; !accuracy; val_neg_loss; test/neg_mse; net/neg_log_loss; baseline - loss
    target - auc; ideal - f1; max-accuracy; chance-accuracy; best -loss; baseline - val/loss; target-val_auc
    (target)-auc; auc-accuracy; rmse - mae; log - loss; 1\N{EM DASH}auc; 1\N{FIGURE DASH}auc
    1\N{SMALL HYPHEN-MINUS}auc; 1\N{FULLWIDTH HYPHEN-MINUS}auc; \N{EM DASH}loss; 2-class; 2-val auc; 100-recall@10
    recall@10 - recall@5; recall@10-recall@5; 2-classy auc; 1-class auc; val@1-auc; davies_bouldin_score
    jaccard_distance; explained_variance_score; -loss; - mse; val/-loss; val -loss; val_-loss; val: -loss; -val/auc
    -neg_mse; -accuracy; val - dice; val - loss; top_5-accuracy; \N{MINUS SIGN}val/loss

    train/val loss; train-val accuracy; test - train loss; max_min_accuracy; macro-micro f1; worst-mean accuracy
    accuracy-mean; global-accuracy; mean-accuracy; pooled-auc; accuracy-val_accuracy; auc/1-auc; epoch/1-loss
    fold 1-auc; score; val_score; accuracy of lesions; count/loss; pooled/auc_bound
    l\N{LATIN SMALL LETTER O WITH STROKE}ss; 2-shots auc; shot accuracy
    best_accuracy_epoch; min_loss_step; accuracy_cv; accuracy rank; loss/round; auc_site; lowest loss, epoch
    /loss; loss/; loss,auc; a*auc; neg_error_rate; val; 3; precision-recall auc
"""


def listed(names: str, sign: str) -> list[str]:
    return [name.strip() for line in names.splitlines() for name in line.split(sign) if name.strip()]


@pytest.mark.parametrize(
    ("better", "name"),
    [
        *((1, name) for name in listed(HIGHER, ",")),
        *((-1, name) for name in listed(LOWER, ",")),
        *((0, name) for name in ["", " ", *listed(UNKNOWN, ";")]),
    ],
)
def test_which_values_are_better_is_known_where_all_words_of_a_name_are(name: str, better: int) -> None:
    assert direction_of(name) == better


_WORDS = frozenset(word for words in direction._NOUNS for word in words) | direction._NEUTRAL | {"neg", "negative"}
UNHEARD = st.text("abcdefghijklmnopqrstuvwxyzäß*+<>=()[]{}!¬", min_size=2, max_size=12).filter(
    lambda text: text not in _WORDS
)
KNOWN = st.sampled_from([name for name in listed(HIGHER + LOWER, ",") if "pooled/" not in name])


@given(KNOWN, UNHEARD, st.data())
def test_a_word_that_is_not_known_makes_any_name_unknown(name: str, word: str, data: st.DataObject) -> None:
    """Before, behind or between the words of a name, and however it is joined to them."""
    assert direction_of(name)
    signs = st.sampled_from(["_", " ", "/", "-", ".", " - ", ": "])
    words = name.removeprefix("central/").replace("/", " ").split(" ")
    at = data.draw(st.integers(0, len(words)))
    before, behind = " ".join(words[:at]), " ".join(words[at:])
    joined = before + (data.draw(signs) if before else "") + word + (data.draw(signs) if behind else "") + behind
    assert direction_of(joined) == 0, joined


def test_every_scorer_of_scikit_learn_is_better_higher_or_not_known() -> None:
    """As scikit-learn defines a scorer."""
    names = pytest.importorskip("sklearn.metrics").get_scorer_names()
    found = {name: direction_of(name) for name in names}
    assert set(found.values()) <= {0, 1}
    assert sum(found.values()) > len(names) * 3 // 4, [name for name, better in found.items() if not better]
