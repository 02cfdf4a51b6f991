"""Tokens by the role whose words they are, in numbers people read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tutelage.render.token_roles import ROLES, TokenRoles, role_counts
from tutelage.report import numbers


@dataclass(slots=True)
class RoleShares:
    """Tokens of each role, summed one sequence at a time.

    Attributes:
        counts: tokens by role.
        sequences: how many were added.
        untraced: how many of them were not traced whole.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sequences: int = 0
    untraced: int = 0

    @classmethod
    def of(cls, roles: Iterable[TokenRoles]) -> RoleShares:
        """The shares of some sequences."""
        shares = cls()
        for role in roles:
            shares.add(role)
        return shares

    def add(self, roles: TokenRoles) -> None:
        """Count one sequence."""
        self.counts.update(role_counts(roles))
        self.sequences += 1
        self.untraced += not roles.traced

    @property
    def parts(self) -> tuple[tuple[str, int, float], ...]:
        """Role, tokens and share of all tokens, for each role that has any, in the order of ROLES."""
        total = self.counts.total()
        return tuple((name, self.counts[name], self.counts[name] / total) for name in ROLES if self.counts[name])

    @property
    def sentence(self) -> str:
        """`user 34 (52.3 %), assistant 12 (18.5 %), template 19 (29.2 %)`."""
        return ", ".join(
            f"{name} {numbers.count(count)} ({numbers.percent(share)})" for name, count, share in self.parts
        )

    @property
    def caution(self) -> str | None:
        """A sentence on sequences whose roles are not traced; None when all are."""
        if not self.untraced:
            return None
        some = (
            "This sequence is"
            if self.sequences == 1
            else (f"{numbers.count(self.untraced)} of {numbers.count(self.sequences)} sequences are")
        )
        return (
            f"{some} not written by the template in one piece: where the roles cannot be traced, trained tokens count "
            "as the assistant's and all others as the template's."
        )
