"""Class scores to the answer of an image classifier: the best label, and the best few with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MOST = 5
_TOLERANCE = 1e-3


def classified(scores: Any, labels: Sequence[str] | None) -> list[str]:
    """`{"predicted_label": …, "scores": [[label, p], …]}` a row, best first. `scores`: [N, K], or a list of maps."""
    import orjson

    if isinstance(scores, list):
        rows = [_best(_array(list(row.values())), [str(key) for key in row]) for row in scores]
    else:
        table = scores.reshape(len(scores), -1)
        names = _names(labels, table.shape[1])
        rows = [_best(row, names) for row in table]
    option = orjson.OPT_SERIALIZE_NUMPY
    return [orjson.dumps(row, option=option).decode() for row in rows]


def probabilities(scores: Array) -> Array:
    """The scores of one row themselves where they are non-negative and sum to 1, else their softmax."""
    import numpy as np

    wide = scores.astype(np.float64)
    if (wide >= 0).all() and abs(wide.sum() - 1) <= _TOLERANCE:
        return scores
    with np.errstate(invalid="ignore"):
        powers = np.exp(wide - wide.max())
        softmax: Array = (powers / powers.sum()).astype(scores.dtype if scores.dtype.kind == "f" else np.float64)
        return softmax


def _best(scores: Array, names: Sequence[str]) -> dict[str, object]:
    import numpy as np

    chances = probabilities(scores)
    order = np.argsort(-chances, kind="stable")[:MOST]
    if chances.dtype.name == "float16":
        chances = chances.astype(np.float32)
    return {
        "predicted_label": names[order[0]] if len(order) else None,
        "scores": [[names[position], chances[position]] for position in order],
    }


def _array(values: list[Any]) -> Array:
    import numpy as np

    return np.asarray(values, dtype=np.float32)


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    known = list(labels or ())[:count]
    return known + [str(position) for position in range(len(known), count)]
