"""Rows of every shape with values of other types in them: a drop with a reason each, and never a crash."""

from __future__ import annotations

import copy
import json
import random

import pytest

from tests.formats.row_shapes.conftest import ROWS
from tutelage.errors import DataError
from tutelage.formats import row_shapes

OTHER_VALUES = (None, 7, -1.5, True, "", " ", "words", [], ["words"], [[]], [7], {}, {"role": ["user"]}, [{"text": 7}])
COPIES = 200


def places(value, path=()):
    """The way to each member of a nested value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


def broken(row, randomness):
    copied = copy.deepcopy(row)
    *way, key = randomness.choice(list(places(copied)))
    container = copied
    for step in way:
        container = container[step]
    container[key] = copy.deepcopy(randomness.choice(OTHER_VALUES))
    return copied


@pytest.mark.parametrize("name", [name for name, shape in row_shapes().items() if not (shape.base or shape.refuse)])
def test_a_value_of_another_type_is_a_drop_and_never_a_crash(put, load, name):
    randomness = random.Random(name)
    rows = [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    broken_rows = [broken(randomness.choice(rows), randomness) for _ in range(COPIES)]
    path = put("a.jsonl", "".join(json.dumps(row) + "\n" for row in broken_rows))
    for row_shape in (name, "auto"):
        try:
            result = load(path, shape=row_shape)
        except DataError:
            continue
        assert len(result.conversations) + result.ledger.rows_dropped
