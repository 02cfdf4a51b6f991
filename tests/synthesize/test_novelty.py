"""The index decides as the plain rule does, on made texts, on real ones, in every script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.synthesize.novelty import LONG_WORDS, Nearest, NoveltyIndex
from tutelage.words import longest_common_subsequence, plain_words

PROBES = Path(__file__).parents[2] / "datasets"
WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=14)


def plain_nearest(texts: list[list[str]], words: list[str], bound: Fraction) -> Nearest | None:
    """The rule itself: the ROUGE-L with every earlier text, the highest of them."""
    best = None
    for number, other in enumerate(texts):
        total = len(words) + len(other)
        score = Fraction(2 * longest_common_subsequence(words, other), total) if total else Fraction(1)
        if score >= bound and (best is None or score > best[1]):
            best = (number, score)
    return None if best is None else Nearest(best[0], float(best[1]))


def decisions_agree(texts: list[list[str]], bound: float) -> int:
    """Put texts through both, adding each; how many were new."""
    index, earlier, new = NoveltyIndex(bound), [], 0
    for words in texts:
        found = index.nearest(words)
        assert found == plain_nearest(earlier, words, Fraction(str(bound))), words
        index.add(words)
        earlier.append(words)
        new += found is None
    return new


@given(st.lists(WORDS, max_size=24), st.sampled_from([0.5, 0.6, 0.65, 0.7, 0.75, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_decides_as_the_plain_rule_on_few_words(texts: list[list[str]], bound: float) -> None:
    decisions_agree(texts, bound)


def test_decides_as_the_plain_rule_over_reorderings_and_merged_runs() -> None:
    texts = [words for words in shortened_sentences() if len(words) > 3][:1400]
    assert 400 < decisions_agree(texts, 0.7) < 1400  # neither all new nor none: both answers are put to the test


def test_long_texts_are_compared_with_short_ones_and_with_each_other() -> None:
    long = [f"w{number}" for number in range(LONG_WORDS + 40)]
    index = NoveltyIndex(0.7)
    index.add(long[: LONG_WORDS - 20])
    index.add(long)
    assert index.nearest(long[10:]) == Nearest(1, 2 * (LONG_WORDS + 30) / (2 * LONG_WORDS + 70))
    assert index.nearest(long[: LONG_WORDS - 21]) is not None
    assert index.nearest([f"v{number}" for number in range(LONG_WORDS + 1)]) is None


def test_seven_of_ten_words_is_the_bound_itself_and_not_new() -> None:
    index = NoveltyIndex(0.7)
    index.add(list("abcdefghij"))
    assert index.nearest(list("abcdefgxyz")) == Nearest(0, 0.7)
    assert index.nearest(list("abcdefuxyz")) is None
    assert index.nearest(list("gfedcbaxyz")) is None  # the same words in another order are another text


@pytest.mark.parametrize(
    ("first", "copy", "other"),
    [
        ("请写一首关于春天的诗", "请写一首关于春天的诗歌", "解释光合作用的过程"),
        ("اكتب قصيدة قصيرة عن فصل الربيع", "اكتب قصيدة جميلة عن فصل الربيع", "اشرح عملية التمثيل الضوئي في النبات"),
        ("Напиши короткое стихотворение о весне", "Напиши новое короткое стихотворение о весне", "Объясни фотосинтез"),
        ("春についての詩を書いてください", "春についての詩を書いてくれ", "光合成の過程を説明しなさい"),
        ("เขียนบทกวีเกี่ยวกับฤดูใบไม้ผลิ", "เขียนบทกวีเกี่ยวกับฤดูใบไม้ร่วง", "อธิบายกระบวนการสังเคราะห์แสง"),
        ("वसंत ऋतु पर एक कविता लिखिए", "वसंत ऋतु पर एक छोटी कविता लिखिए", "प्रकाश संश्लेषण की प्रक्रिया समझाइए"),
        ("请用 Python 写一个排序函数", "请用 Python 写一个排序的函数", "请解释 Python 是什么"),
    ],
)
def test_copies_are_found_and_others_pass_in_every_script(first: str, copy: str, other: str) -> None:
    index = NoveltyIndex(0.7)
    index.add(plain_words(first))
    assert index.nearest(plain_words(first)) == Nearest(0, 1.0)
    assert index.nearest(plain_words(copy)) is not None
    assert index.nearest(plain_words(other)) is None


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert plain_words("Re\u0301sume\u0301 à cote\u0301") == plain_words("Résumé à coté") == ["résumé", "à", "coté"]


def test_texts_without_words_are_alike() -> None:
    index = NoveltyIndex(0.7)
    assert index.nearest([]) is None
    index.add(["a"])
    index.add([])
    index.add([])
    assert index.nearest(plain_words("?!")) == Nearest(1, 1.0)
    assert index.nearest(["a"]) == Nearest(0, 1.0)


@pytest.mark.parametrize("bound", [0.49, 1.01, 7])
def test_bounds_for_which_nothing_is_proven_are_refused(bound: float) -> None:
    with pytest.raises(ValueError, match=r"0\.5 to 1"):
        NoveltyIndex(bound)


def test_few_texts_are_compared_in_full() -> None:
    index = NoveltyIndex(0.7)
    texts = [words for words in shortened_sentences() if len(words) > 3]
    for words in texts[:2000]:
        index.nearest(words)
        index.add(words)
    assert index.compared < 2000 * 1999 // 2 // 50  # of all pairs


def shortened_sentences() -> Iterator[list[str]]:
    """Sentences of the packaged data sets, each followed now and then by itself without some words."""
    for path in sorted(PROBES.rglob("*.jsonl")):
        for number, sentence in enumerate(re.split(r"(?<=[.?!])\s+|\\n|\"", path.read_text(encoding="utf-8"))):
            words = plain_words(sentence)
            yield words
            if number % 3 == 0:
                kept = len(words) * (5 + number % 5) // 10
                yield words[:kept]
                yield words[-kept:] + words[: len(words) - kept]


def test_ten_thousand_are_decided_as_by_comparing_all() -> None:
    rapidfuzz = pytest.importorskip("rapidfuzz", reason="comparing all of 10,000 needs compiled code")
    texts = [words for words in shortened_sentences() if words]
    assert len(texts) >= 10_000
    texts, numbers = texts[:10_000], {}
    encoded = ["".join(numbers.setdefault(word, chr(0x10000 + len(numbers))) for word in words) for words in texts]
    lengths = np.array([len(words) for words in texts])
    index = NoveltyIndex(0.7)
    for number, words in enumerate(texts):
        found, best = index.nearest(words), None
        if number:
            scorer = rapidfuzz.distance.LCSseq.similarity
            common = rapidfuzz.process.cdist(encoded[number : number + 1], encoded[:number], scorer=scorer)[0]
            scores = 2 * common.astype(np.int64) / (len(words) + lengths[:number])
            at = int(scores.argmax())
            best = Nearest(at, float(scores[at])) if 20 * common[at] >= 7 * (len(words) + lengths[at]) else None
        assert found == best
        index.add(words)
