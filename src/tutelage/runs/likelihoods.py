"""All that a run says of likelihoods: losses by place and source, and questions with choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tutelage.runs.fields import Fields
from tutelage.runs.losses import PlaceMeasure, Rate, read_loss_measures
from tutelage.runs.multiple_choice import ChoiceMeasure, read_choice_measure


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Losses by place, and the choices; None where no question was asked."""

    losses: Mapping[str, PlaceMeasure]
    choices: ChoiceMeasure | None

    @property
    def heldout(self) -> Rate | None:
        """The loss of all held-out rows, a token."""
        return self.losses["heldout"].all.per_token if "heldout" in self.losses else None


def read_likelihoods(result: Fields) -> Likelihoods:
    """What `result.json` says; older files say nothing."""
    return Likelihoods(read_loss_measures(result.inner("losses")), read_choice_measure(result.inner("multiple_choice")))
