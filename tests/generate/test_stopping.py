"""Where a reply ends: stop tokens, stop strings wherever they lie among tokens, and its length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tutelage.generate.stopping import ReplyText
from tutelage.render import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


def fed(tokenizer: Tokenizer, ids: list[int], *stop_strings: str, max_new_tokens: int = 1000) -> ReplyText:
    """The reply after as many of `ids` as it takes."""
    reply = ReplyText(tokenizer, stop_strings, max_new_tokens)
    for token in ids:
        if reply.ended_by is not None:
            break
        reply.add(token)
    return reply


def letters(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token for each byte."""
    return [id_ for letter in text for id_ in tokenizer.encode([letter])[0]]


def test_a_stop_string_may_lie_across_tokens(tokenizer: Tokenizer) -> None:
    ids = letters(tokenizer, "one END two")

    reply = fed(tokenizer, ids, "END")

    assert reply.ended_by == "stop_string"
    assert reply.text == "one "
    assert reply.ids == ids[:7], "the token that completes it is the last"


def test_a_stop_string_may_lie_in_the_middle_of_a_token(tokenizer: Tokenizer) -> None:
    wide = next(
        id_ for token, id_ in tokenizer.fast.get_vocab().items() if len(token) >= 4 and token.isascii() and id_ < 400
    )
    spelled = tokenizer.decode([wide])

    reply = fed(tokenizer, [*letters(tokenizer, "so: "), wide, *letters(tokenizer, "!")], spelled[1:-1])

    assert reply.ended_by == "stop_string"
    assert reply.text == f"so: {spelled[0]}"
    assert reply.ids[-1] == wide


def test_of_several_stop_strings_the_earliest_ends_the_text(tokenizer: Tokenizer) -> None:
    wide = next(
        id_ for token, id_ in tokenizer.fast.get_vocab().items() if len(token) >= 4 and token.isascii() and id_ < 400
    )
    spelled = tokenizer.decode([wide])

    reply = fed(tokenizer, [*letters(tokenizer, "so: "), wide], spelled[2:], spelled[1:3], "never")

    assert reply.text == f"so: {spelled[0]}"


def test_a_stop_string_may_have_letters_of_several_bytes(tokenizer: Tokenizer) -> None:
    reply = fed(tokenizer, letters(tokenizer, "gut; schön; müde"), "ö")

    assert (reply.ended_by, reply.text) == ("stop_string", "gut; sch")


def test_a_longer_stop_string_that_begins_alike_does_not_wait(tokenizer: Tokenizer) -> None:
    assert fed(tokenizer, letters(tokenizer, "a\n\nb"), "\n\n\n", "\n").text == "a"
    assert fed(tokenizer, letters(tokenizer, "a\n\nb"), "\n\n").text == "a"


def test_a_stop_string_far_into_a_reply_is_found(tokenizer: Tokenizer) -> None:
    text = "many words and more, then " * 30

    reply = fed(tokenizer, letters(tokenizer, text + "STOP here"), "STOP")

    assert (reply.ended_by, reply.text) == ("stop_string", text)


@pytest.mark.parametrize("seed", range(30))
def test_a_reply_ends_at_the_first_token_after_which_its_text_has_a_stop_string(
    tokenizer: Tokenizer, seed: int
) -> None:
    random = np.random.default_rng(seed)
    ids = [id_ for id_ in random.integers(0, 416, 120).tolist() if id_ not in tokenizer.stop_ids]
    ids[60:60] = letters(tokenizer, "schön müde 🙂 ") + [410] * int(random.integers(0, 90))
    text = tokenizer.decode(ids)
    places = random.integers(len(text) // 3, len(text) - 8, 2).tolist()
    stop_strings = [text[place : place + int(random.integers(2, 8))] for place in places]

    reply = fed(tokenizer, ids, *stop_strings)

    ends = (count for count in range(1, len(ids) + 1) if any(map(tokenizer.decode(ids[:count]).count, stop_strings)))
    assert len(reply.ids) == next(ends)
    assert reply.text == text[: min(text.find(stop_string) % len(text) for stop_string in stop_strings)]


def test_the_time_a_stop_string_takes_does_not_grow_with_the_reply(tokenizer: Tokenizer) -> None:
    decoded: list[int] = []

    class Counting:
        stop_ids = tokenizer.stop_ids

        def decode(self, ids: list[int]) -> str:
            decoded.append(len(ids))
            return tokenizer.decode(ids)

    reply = ReplyText(Counting(), ("never this",), 2000)  # type: ignore[arg-type] # all that it asks of a tokenizer
    for token in letters(tokenizer, "many words and more, then " * 30):
        reply.add(token)

    assert max(decoded) < 40


def test_a_stop_token_ends_the_reply_and_is_not_part_of_it(tokenizer: Tokenizer) -> None:
    (stop,) = tokenizer.stop_ids
    ids = letters(tokenizer, "ready")

    reply = fed(tokenizer, [*ids, stop, *ids], "never")

    assert (reply.ended_by, reply.text, reply.ids) == ("stop_token", "ready", ids)


def test_other_special_tokens_are_part_of_it(tokenizer: Tokenizer) -> None:
    special = tokenizer.special_tokens["<|im_start|>"]

    reply = fed(tokenizer, [special, *letters(tokenizer, "x")], max_new_tokens=2)

    assert reply.text == "<|im_start|>x"
    assert fed(tokenizer, [special], "start").text == "<|im_"


def test_a_reply_ends_at_its_length(tokenizer: Tokenizer) -> None:
    ids = letters(tokenizer, "abcdef")

    assert (fed(tokenizer, ids, max_new_tokens=3).ended_by, fed(tokenizer, ids, max_new_tokens=3).text) == (
        "length",
        "abc",
    )
    assert fed(tokenizer, ids, max_new_tokens=7).ended_by is None
    assert fed(tokenizer, [next(iter(tokenizer.stop_ids))], max_new_tokens=1).ended_by == "stop_token"
    assert fed(tokenizer, ids, "c", max_new_tokens=3).ended_by == "stop_string", "rather than its length"


def test_ids_beyond_the_tokenizers_own_say_nothing(tokenizer: Tokenizer) -> None:
    ids = [*letters(tokenizer, "ab"), 415, *letters(tokenizer, "c")]

    reply = fed(tokenizer, ids, "never", max_new_tokens=4)

    assert (reply.ended_by, reply.text, reply.ids) == ("length", "abc", ids)
