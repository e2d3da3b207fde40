"""The bag-of-words baseline that a transformer has to beat."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.data import Split, Task
from model.splits import joined

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Inverse regularisation strengths C that are tried on the validation split."""


@dataclass(frozen=True)
class Baseline:
    """TF-IDF of one and two words with logistic regression.

    Attributes
    ----------
    strength
        The C that is best on the validation split (the smallest of equals).
    validation_accuracy, validation_n
        Share of correct answers with it, and of how many.
    """

    strength: float
    validation_accuracy: float
    validation_n: int
    pipeline: Any

    def correct(self, split: Split) -> np.ndarray:
        """Whether each example is answered correctly, bool."""
        return np.asarray(self.pipeline.predict(_strings(split))) == split.labels

    def accuracy(self, split: Split) -> float:
        """Share of correct answers."""
        return float(self.correct(split).mean())


def _strings(split: Split) -> list[str]:
    return [joined(text) for text in split.texts]


def fit_baseline(task: Task, further: Split | None = None) -> Baseline:
    """Fit the baseline on the training split, its C chosen on the validation split.

    It reads whole texts, also where a model's are cut; of a pair, both in one bag.

    Parameters
    ----------
    further
        Texts of another task of the same labels, to learn beside the training split.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    texts, labels = _strings(task.train), task.train.labels
    if further is not None:
        texts, labels = texts + _strings(further), np.append(labels, further.labels)
    train = vectorizer.fit_transform(texts)
    validation = vectorizer.transform(_strings(task.validation))
    best: tuple[float, float, Any] | None = None
    for strength in STRENGTHS:
        classifier = LogisticRegression(C=strength, max_iter=1000)
        classifier.fit(train, labels)
        accuracy = float((classifier.predict(validation) == task.validation.labels).mean())
        if best is None or accuracy > best[0]:
            best = (accuracy, strength, classifier)
    assert best is not None
    accuracy, strength, classifier = best
    pipeline = make_pipeline(vectorizer, classifier)
    return Baseline(strength, accuracy, len(task.validation), pipeline)
