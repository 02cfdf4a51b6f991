"""How long the packed rows of a run become: what is tried on its model is tried at these lengths."""

from __future__ import annotations

import numpy as np

from tutelage.builders.dataset import Prepared
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.model.attention.isolation_check import MaxLengths


def longest_rows(resolved: ResolvedRun, prepared: Prepared) -> MaxLengths:
    """How long the rows of this run become at most: what fits in one, and no more than a step or the validation has."""
    settings = resolved.settings
    virtual = settings.prompt.tokens if settings.model.method == "prompt" else 0
    train, validation = (
        np.asarray(examples.column("tokens")) + virtual for examples in (prepared.train, prepared.validation)
    )
    step = np.sort(train)[-settings.train.batch_size :]
    total_tokens = max(int(step.sum()), int(validation.sum()))
    return MaxLengths(
        row_tokens=min(resolved.row_tokens, total_tokens),
        document_tokens=int(max(train.max(initial=1), validation.max(initial=1))),
    )
