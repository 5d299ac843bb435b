"""The model of this example: support vectors and their labels, from which a support vector machine is fitted anew.

A file holds two arrays in numpy's .npz, `vectors` (float32 [n, features]) and `labels` (int64 [n]), and no
code. scikit-learn saves a fitted SVC as a pickle, and a pickle can run code in the process that opens it.
"""

import numpy as np
from sklearn.svm import SVC

# The same at all clinics. gamma="scale" would be another number at each of them
C, GAMMA = 1.0, 0.02


def fit(vectors, labels):
    """A support vector machine with an RBF kernel on these rows; they need both labels."""
    return SVC(C=C, gamma=GAMMA).fit(vectors, labels)


def pool(*models):
    """The rows of several (vectors, labels), each once: a row twice would weigh twice."""
    rows = np.unique(np.concatenate([np.column_stack([vectors, labels]) for vectors, labels in models]), axis=0)
    return rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64)


def support(vectors, labels):
    """Those of these rows that are support vectors, with their labels."""
    rows = fit(vectors, labels).support_
    return vectors[rows], labels[rows]


def save(path, model):
    vectors, labels = model
    with open(path, "wb") as file:  # given a name, np.savez would append .npz to it
        np.savez(file, vectors=vectors, labels=labels)


def load(path):
    """(vectors, labels) of a file; a ValueError says what is wrong with one that holds something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors, labels = file["vectors"], file["labels"]
    except OSError:
        raise
    except Exception as error:  # numpy and zipfile have many kinds for a damaged file
        raise ValueError(f"{path}: not a file of support vectors: {error}") from None
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
        raise ValueError(f"{path}: vectors must be finite float32 [n, features], not {vectors.dtype} {vectors.shape}")
    if labels.shape != vectors.shape[:1] or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{path}: labels must be a 0 or 1 for each of {len(vectors)} vectors")
    return vectors, labels
