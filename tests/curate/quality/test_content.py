"""Rules about content: refusals, repetition, personal data, toxicity and language."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.curate.quality.rows import HERE, chat, finding
from tests.evaluate.test_language import REPLIES
from tutelage.config.curation_quality import PersonalSettings, RefusalSettings
from tutelage.curate.quality.personal import Personal
from tutelage.curate.quality.personal_patterns import iban_holds, luhn_holds
from tutelage.curate.quality.refusal import known_languages
from tutelage.curate.quality.repetition import MOST_REPEATED, MOST_TOP, repeated_words
from tutelage.curate.quality.rule import ChunkTexts, RowTexts
from tutelage.errors import ConfigError
from tutelage.types import Conversation, Message, ToolCall


@pytest.mark.parametrize(
    "reply",
    [
        "As an AI language model, I don't have personal opinions.",
        "I’m sorry, but I can’t assist with that request.",
        "Sure! As a large language model, I think it is good.",
        "I apologize, but I cannot provide that.",
        "As of my last knowledge update in 2021, it was so.",
        "Als KI-Sprachmodell kann ich das nicht beurteilen.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "En tant que modèle de langage, je n'ai pas d'avis.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "In quanto modello linguistico, non ho opinioni.",
        "Desculpe, mas não posso ajudar com isso.",
        "Als taalmodel heb ik geen mening.",
        "Jako model językowy nie mam opinii.",
        "Как языковая модель, я не имею мнения.",
        "作为一个AI语言模型，我没有个人观点。",
        "AI言語モデルとして、意見はありません。",
        "AI 언어 모델로서 저는 의견이 없습니다.",
    ],
)
def test_refusals_and_boilerplate_in_twelve_languages(reply: str) -> None:
    assert finding("refusal", chat("What do you advise?", reply)) is not None


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("What is it?", "An AI language model predicts the next word."),
        ("Write about it.", 'He said: "As an AI language model, I dream."'),
        ("Show it.", "The sentence is `As an AI language model`."),
        ("Who are you?", "As an AI language model, I was made to help."),
        ("Where is my parcel?", "I'm sorry that it is late. It will be there on Friday."),
        ("Can I return it?", "I'm sorry, but returns are possible within 30 days only."),
        ("Is it legal?", "It is illegal to drink and drive."),
        ("Can pigs fly?", "Pigs cannot fly, as they have no wings."),
        ("Und?", "Das Kino hat leider geschlossen."),
    ],
)
def test_talk_of_models_service_and_facts_are_no_refusal(prompt: str, reply: str) -> None:
    assert finding("refusal", chat(prompt, reply)) is None


def test_rows_with_tools_and_other_languages_are_not_looked_at() -> None:
    row = chat("Order a pizza.", "I'm sorry, but I can't assist with that.")
    assert finding("refusal", row) is not None
    tools = ({"name": "time"},)
    assert finding("refusal", chat("Order a pizza.", "I'm sorry, but I can't assist with that.", tools=tools)) is None
    assert finding("refusal", row, languages=["de"]) is None


def test_the_settings_know_the_languages_of_the_list() -> None:
    assert RefusalSettings(languages=list(known_languages())).languages
    with pytest.raises(ValueError, match="no sentences for the language 'xx'"):
        RefusalSettings(languages=["xx"])


WORDS = list("abcdefghijklmnopq")


def test_loops_are_repetition_and_varied_text_is_not() -> None:
    varied = " ".join(random.Random(3).choices([f"{word}{number}" for word in WORDS for number in range(300)], k=250))
    assert finding("repetition", chat("Hi", varied)) is None
    loop = f"{varied[:300]} {'and then he said that it was so ' * 40}"
    assert "of the text" in str(finding("repetition", chat("Hi", loop)))
    lines = varied[:300] + "\nThe very same line of words is here again." * 40
    assert "lines" in str(finding("repetition", chat("Hi", lines)))


def test_a_text_that_goes_round_at_its_end_is_repetition_though_it_is_short_or_full_of_signs() -> None:
    sums = " ".join(f"Then {number}*{number} = <<{number}*{number}={number**2}>>{number**2}." for number in range(30))
    assert finding("repetition", chat("Hi", sums)) is None
    found = finding("repetition", chat("Hi", sums + " So it is <<2+2=4>>4 dollars." * 6))
    assert found == "ends with 'So it is <<2+2=4>>4 dollars.' 6 times"
    assert finding("repetition", chat("Hi", sums + " So it is <<2+2=4>>4 dollars." * 3)) is None
    assert finding("repetition", chat("Hi", sums + " | 0 | 1" * 20)) is None  # an empty table


@pytest.mark.parametrize(
    "reply",
    [
        "no " * 40,  # fewer words than are judged
        "```\n" + "x = f(1)\n" * 60 + "```\nThat is the code.",
        '{"rows": [' + ", ".join('{"name": "a b c d", "value": "e f g h"}' for _ in range(40)) + "]}",
        "Verse one is new and long, with its own words in it.\n(Chorus) Oh the sea, the wide and deep blue sea\n"
        "Verse two is new as well, and says that ships come home.\n(Chorus) Oh the sea, the wide and deep blue sea\n"
        "Verse three tells of the wind that blew them far away to lands of snow and ice where no one lives. Verse four "
        "is short.",
    ],
)
def test_short_texts_code_records_and_choruses_are_left_alone(reply: str) -> None:
    assert finding("repetition", chat("Hi", reply)) is None


def gopher(words: list[str]) -> bool:
    """Table A1 for n-grams written again, without any shortcut."""
    characters = sum(map(len, words))
    for size in (*MOST_TOP, *MOST_REPEATED):
        ngrams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
        if size in MOST_TOP:
            top = max(ngrams, key=lambda ngram: (ngrams.count(ngram), -ngrams.index(ngram)))
            if ngrams.count(top) > 1 and ngrams.count(top) * len("".join(top)) > MOST_TOP[size] * characters:
                return True
            continue
        seen, place, repeated = set(), 0, 0
        while place < len(ngrams):
            if ngrams[place] in seen:
                repeated += len("".join(ngrams[place]))
                place += size
            else:
                seen.add(ngrams[place])
                place += 1
        if repeated > MOST_REPEATED[size] * characters:
            return True
    return False


def test_the_shortcuts_change_no_verdict() -> None:
    chance = random.Random(7)
    verdicts = []
    for _ in range(120):
        words = chance.choices(WORDS[: chance.randint(3, 17)], k=chance.randint(12, 60))
        words += words[: chance.randint(0, len(words))]
        verdicts.append(gopher(words))
        assert (repeated_words(words) is not None) == verdicts[-1], words
    assert len(set(verdicts)) == 2


def test_personal_data_in_reasoning_and_in_arguments_of_calls_is_found_and_masked() -> None:
    arguments = {"to": ["anna.k@webmail.net"], "card": 4539148803436467, "times": 3, "now": True, "note": None}
    turn = Message(
        "assistant", "Sent.", reasoning="Her mail is anna.k@webmail.net.", tool_calls=(ToolCall("send", arguments),)
    )
    row = Conversation((Message("user", "Write to her."), turn), HERE)
    rule = Personal(PersonalSettings())

    assert rule.screen(ChunkTexts([row])).tolist() == [True]
    evidence = str(rule(RowTexts(row)))
    assert evidence.startswith("3 found: ")
    assert "webmail" not in evidence

    masked = rule.masked(row).messages[1]
    assert masked.content == "Sent."
    assert masked.reasoning == "Her mail is [EMAIL]."
    assert masked.tool_calls[0].arguments == arguments | {"to": ["[EMAIL]"], "card": "[CARD]"}
    assert rule(RowTexts(rule.masked(row))) is None


PERSONAL = {
    "email": "anna.k@webmail.net",
    "phone": "+49 170 4839201",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4539 1488 0343 6467",
    "ip": "93.184.216.34",
    "key": "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gH3jK5",
}


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_is_found_veiled_and_masked(kind: str) -> None:
    row = chat("Hi", f"It is {PERSONAL[kind]}, he said.")
    evidence = str(finding("personal", row))
    assert kind in evidence
    assert PERSONAL[kind] not in evidence
    assert PERSONAL[kind][3:] not in evidence
    masked = Personal(PersonalSettings()).masked(row)
    assert masked.messages[1].content == f"It is [{kind.upper()}], he said."
    others = [other for other in PERSONAL if other != kind]
    assert finding("personal", row, kinds=others) is None


@pytest.mark.parametrize(
    "text",
    [
        "Write to user@example.com or git@github.com.",
        "See image@2x.png and @someone.",
        "Version 1.2.3.4 at 192.168.1.1 and 127.0.0.1, network 8.8.8.0/24",
        "DE00 3704 0044 0532 0130 00 is no account.",
        "4539 1488 0343 6468 is no card, and 4111 1111 1111 1111 is for tests.",
        "1234567890123456 and 3.14159265358979",
        "2023-10-11 12:30:45 and 1,000,000 people, ISBN 978-3-16-148410-0",
        "12 + 34 = 46; 555-0123",
        "sk-learn and hf_transfer",
        "call 202-555-0143",
    ],
)
def test_reserved_addresses_versions_and_wrong_check_digits_are_no_personal_data(text: str) -> None:
    assert finding("personal", chat("Hi", text)) is None


def test_check_digits() -> None:
    assert luhn_holds("79927398713")
    assert not luhn_holds("79927398710")
    assert iban_holds("GB29 NWBK 6016 1331 9268 19")
    assert not iban_holds("GB29 NWBK 6016 1331 9268 18")
    assert not iban_holds("GB29 NWBK 6016 1331 9268")


def test_listed_words_are_counted_and_veiled() -> None:
    pytest.importorskip("glin_profanity", reason="the extra [curate] is not installed")
    row = chat("Hi", "What the fuck is this shit?")
    evidence = str(finding("toxicity", row))
    assert evidence.startswith("2 listed words")
    assert "shit" not in evidence
    assert finding("toxicity", row, least_words=3) is None
    assert finding("toxicity", row, allowed=["fuck"]) is None
    assert finding("toxicity", chat("Hi", "Scunthorpe, class, assassin and cocktails.")) is None
    with pytest.raises(ConfigError, match="no list of words"):
        finding("toxicity", row, languages=["klingon"])


def test_the_language_that_was_asked_for_or_that_of_the_prompt() -> None:
    pytest.importorskip("py3langid", reason="the extra [curate] is not installed")
    wrong = 0
    for code, texts in REPLIES.items():
        for text in texts:
            assert finding("language", chat("Hi", text), languages=[code]) is None, text
            wrong += finding("language", chat("Hi", text), languages=["eu"]) is not None
    assert wrong >= 0.6 * sum(map(len, REPLIES.values()))
    german, english = REPLIES["de"][0], REPLIES["en"][0]
    assert finding("language", chat(german, english), as_prompt=True) is not None
    assert finding("language", chat(english, english), as_prompt=True) is None
    assert finding("language", chat(german, english)) is None
    excused = (
        f"{german}\nPlease write in English.",  # a sentence in it
        f"{german} Antworte auf Englisch!",
        f"{german} Bitte übersetzen.",
        f"{german} 영어로",
    )
    for prompt in excused:
        assert finding("language", chat(prompt, english), as_prompt=True) is None, prompt
    both = chat(german, german, english)
    mixed = replace(both, messages=(Message("user", english), *both.messages))
    assert finding("language", both, as_prompt=True) is not None
    assert finding("language", mixed, as_prompt=True) is None
    slovak = (
        "Dobrý deň, chcel by som sa opýtať, kedy bude otvorená knižnica na našej škole a či je možné si požičať knihy."
    )
    czech = (
        "Dobrý den, chtěl bych se zeptat, kdy bude otevřená knihovna v naší škole a jestli je možné si půjčit knihy."
    )
    assert finding("language", chat(slovak, czech), as_prompt=True) is None
    assert finding("language", chat(slovak, czech), languages=["sk"]) is not None


@pytest.mark.parametrize(
    "reply",
    [
        "Ja",
        "Canberra, 1913",
        "```\nfor element in liste: drucke(element)\n```",
        '{"titel": "Der alte Mann und das Meer"}',
        "1 + 2 = 3",
    ],
)
def test_of_short_texts_and_code_no_language_is_said(reply: str) -> None:
    pytest.importorskip("py3langid", reason="the extra [curate] is not installed")
    assert finding("language", chat("Hi", reply), languages=["en"]) is None


def test_an_unknown_language_is_an_error_before_any_row() -> None:
    pytest.importorskip("py3langid", reason="the extra [curate] is not installed")
    with pytest.raises(ConfigError, match="'xx' is not known"):
        finding("language", chat("Hi", "Yes"), languages=["xx"])


def test_documents_are_judged_as_what_is_learned() -> None:
    document = Conversation((Message("text", "and then he said that it was so " * 60),), HERE)
    assert finding("repetition", document) is not None
    assert finding("cut", document) is None
