from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.curate import most_similar
from tutelage.types import Address, Conversation, Message


def asked(*questions: str, file: str = "a.jsonl", reply: str = "yes") -> list[Conversation]:
    return [
        Conversation(
            (Message("system", "Be kind."), Message("user", text), Message("assistant", reply)), Address(file, n)
        )
        for n, text in enumerate(questions, start=1)
    ]


def resemblance(left: str, right: str) -> float:
    """The definition, written again: shared 5-grams over all 5-grams, case and runs of white space aside."""

    def grams(text: str) -> set[str]:
        folded = " ".join(text.casefold().split())
        return {folded[i : i + 5] for i in range(max(1, len(folded) - 4))}

    one, two = grams(left), grams(right)
    return len(one & two) / len(one | two)


def test_the_same_question_in_other_clothes() -> None:
    found = most_similar(asked("Where is my  ORDER?"), asked("something else", "where is\nmy order? ", file="b.jsonl"))
    assert found is not None
    assert found.similarity == 1.0
    assert (str(found.first), str(found.second)) == ("a.jsonl:1", "b.jsonl:2")
    assert found.near_duplicates == 1


def test_only_the_users_words_count() -> None:
    left, right = asked("cats sleep all day", reply="same"), asked("dogs bark at night", reply="same")
    found = most_similar(left, right)
    assert found is not None
    assert found.similarity == 0.0
    assert found.near_duplicates == 0


def test_all_user_turns_and_documents_count() -> None:
    several = [Conversation((Message("user", "one two"), Message("user", "three four")), Address("a", 1))]
    document = [Conversation((Message("text", "one two three four"),), Address("b", 1))]
    found = most_similar(several, document)
    assert found is not None
    assert found.similarity == 1.0


def test_one_word_more() -> None:
    left, right = "My order 4711 has not arrived, please help", "My order 4711 has not arrived, please help me"
    found = most_similar(asked(left), asked(right))
    assert found is not None
    assert found.similarity == pytest.approx(resemblance(left, right))
    assert 0.7 < found.similarity < 1.0
    assert found.near_duplicates == 1


def test_every_near_pair_is_counted() -> None:
    found = most_similar(asked("the very same words", "the very same words"), asked("the very same words", "xyz"))
    assert found is not None
    assert found.near_duplicates == 2


def test_an_empty_split() -> None:
    assert most_similar([], asked("a")) is None
    assert most_similar(asked("a"), []) is None


TEXTS = st.lists(st.text("ab cd\nE", max_size=14), min_size=1, max_size=6)


@given(left=TEXTS, right=TEXTS)
@settings(deadline=None)
def test_it_is_the_highest_of_all_pairs(left: list[str], right: list[str]) -> None:
    found = most_similar(asked(*left), asked(*right, file="b.jsonl"))
    assert found is not None
    similarities = [resemblance(one, two) for one in left for two in right]
    assert found.similarity == pytest.approx(max(similarities))
    assert found.near_duplicates == sum(similarity >= 0.7 for similarity in similarities)
    assert resemblance(left[found.first.number - 1], right[found.second.number - 1]) == pytest.approx(found.similarity)
