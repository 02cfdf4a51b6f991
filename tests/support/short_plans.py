"""The program, which plans its "long documents" with fewer tokens: `short_plans.py ARGUMENTS`.

All of `make_plan` is done; to count 8,192 tokens of a 7B model in bf16 takes a minute, and is done in the night.
"""

from __future__ import annotations

from tutelage.cli import main
from tutelage.plan import plan

LONG_ROWS = (512,)

if __name__ == "__main__":
    plan.LONG_ROWS = LONG_ROWS
    main()
