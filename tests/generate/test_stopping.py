"""Where a reply ends: stop tokens, stop strings wherever they lie among tokens, and its length."""

from __future__ import annotations

from pathlib import Path

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
