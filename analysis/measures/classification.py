"""Classification accuracy score: what a classifier that saw samples alone knows of real pictures.

Samples that lack a mode, or draw it wrong, teach nothing of it: so this one number falls with
fidelity and with diversity, and per class it says where. Source: Ravuri & Vinyals 2019, arXiv
1905.10887, section 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats


def classification_accuracy(
    samples: Any,
    labels: Any,
    real: Any,
    real_labels: Any,
    *,
    classifier: Any = None,
    folds: int = 5,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Accuracy on ``real`` (m, d) of a classifier trained on ``samples`` (n, d), whose labels their
    prompts state.

    ``classifier``: anything of scikit-learn with fit and predict, by default logistic regression on
    standardised features. ``accuracy`` (bound), a bootstrap over real pictures; ``right``
    (picture), 1 where it told one; ``of_class`` (class), the share of each class of real pictures
    that is told; ``ceiling`` (bound): the same classifier trained on as many real pictures, or on
    all the other folds' where there are fewer, and tested on the rest; ``gap`` (bound), ceiling −
    accuracy, picture by picture; ``chance``, the share of the most frequent class. Raises
    ValueError for shapes that do not fit, values that are not finite, and samples of a single
    class.

    >>> x = np.repeat(np.eye(2), 20, axis=0)
    >>> y = np.repeat(["red", "blue"], 20)
    >>> float(classification_accuracy(x, y, x, y)["accuracy"].sel(bound="estimate"))
    1.0
    """
    samples, labels = _checked(samples, labels, "samples")
    real, real_labels = _checked(real, real_labels, "real")
    if samples.shape[1] != real.shape[1]:
        raise ValueError(
            f"samples have {samples.shape[1]} features and real pictures {real.shape[1]}: not one "
            "space"
        )
    classes, counts = np.unique(real_labels, return_counts=True)
    read = _trained(classifier, seed).fit(samples, labels).predict(real)
    right = (read == real_labels).astype(np.float64)
    best = _ceiling(classifier, real, real_labels, len(samples), folds, seed)
    found: dict[str, Any] = {"chance": ((), counts.max() / len(real))}
    options: dict[str, Any] = {
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "unit": "picture",
    }
    for name, values in (("accuracy", right), ("ceiling", best), ("gap", best - right)):
        found[name] = stats.bootstrap_mean(values, **options).array()
    found["of_class"] = ("class", np.array([right[real_labels == k].mean() for k in classes]))
    found["right"] = ("picture", right)
    missing = sorted(set(classes.tolist()) - set(labels.tolist()))
    attrs = {
        "samples": len(samples),
        "real": len(real),
        "missing": ", ".join(map(str, missing)),
    }
    return xr.Dataset(found, {"class": classes}, attrs)


def _checked(x: Any, labels: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, labels = np.asarray(x, dtype=np.float64), np.asarray(labels)
    x = x.reshape(len(x), -1)
    if labels.shape != (len(x),) or len(x) < 2:
        raise ValueError(
            f"{name}: expected features (n, d) and as many labels, got {x.shape} and {labels.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    if len(np.unique(labels)) < 2:
        raise ValueError(f"{name} are all of class {labels[0]!r}: there is nothing to tell apart")
    return x, labels


def _trained(classifier: Any, seed: int) -> Any:
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if classifier is not None:
        return clone(classifier)
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, random_state=seed)
    )


def _ceiling(
    classifier: Any, real: np.ndarray, labels: np.ndarray, n: int, folds: int, seed: int
) -> np.ndarray:
    """Whether each real picture is told by a classifier of other real ones, at most ``n`` of
    them.
    """
    from sklearn.model_selection import StratifiedKFold

    right = np.zeros(len(real))
    rng = np.random.default_rng(seed)
    least = int(np.unique(labels, return_counts=True)[1].min())
    split = StratifiedKFold(max(2, min(folds, least)), shuffle=True, random_state=seed)
    for train, test in split.split(real, labels):
        some = rng.permutation(train)[:n]
        right[test] = (
            _trained(classifier, seed).fit(real[some], labels[some]).predict(real[test])
            == labels[test]
        )
    return right
