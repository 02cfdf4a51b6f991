"""Mojibake is mended in prose and nowhere else, and nothing but mojibake is touched."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

pytest.importorskip("ftfy", reason="the extra [curate] is not installed")

from tutelage.curate.normalize.mojibake import Mojibake, _ftfy
from tutelage.errors import DependencyError

TEXTS = (
    "Das Café in Köln öffnet um acht – ‘wirklich’ – und kostet 5 €.",
    "L’été, il a mangé une crêpe à la maison.",
    "Привет, как дела? Сегодня хорошая погода.",
    "El niño comió piñas en España.",
    "Zażółć gęślą jaźń.",
)


@pytest.fixture
def mend() -> Mojibake:
    return Mojibake()


@pytest.mark.parametrize(
    ("text", "table"),
    [
        *((text, "latin-1") for text in TEXTS),
        (TEXTS[0], "cp1252"),
        (TEXTS[1], "cp1252"),
        (TEXTS[3], "cp1252"),
        ("Я думаю, это так.", "cp1251"),
        (TEXTS[0], "mac_roman"),
    ],
)
def test_utf8_read_by_another_table_comes_back(mend: Mojibake, text: str, table: str) -> None:
    broken = text.encode().decode(table)
    assert broken != text
    assert mend(broken) == text


def test_one_broken_word_in_a_sound_text(mend: Mojibake) -> None:
    assert mend("Die Größe ist 20Â°C, sagte André.") == "Die Größe ist 20°C, sagte André."


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "He said “wait” — and ‘now’… it’s fine.",
        "ﬁne ﬂow, ｆｕｌｌ width, &amp; x² and ½",
        "SÃO PAULO, ÇA VA, ÄÖÜ",
        "The letter Ã is used in Portuguese, and Õ too.",
        "x = 'straight' and y = \"straight\"",
        "\x1b[31mred\x1b[0m",
        "你好，世界。ありがとう。안녕하세요.",
    ],
)
def test_sound_text_is_left_alone(mend: Mojibake, text: str) -> None:
    assert mend(text) == text


@pytest.mark.parametrize(
    "code",
    [
        "```python\nassert 'Ã©'.encode('latin-1') == b'\\xc3\\xa9'\n```",
        "`'cafÃ©'`",
        r"$\text{cafÃ©}$",
        "https://example.org/cafÃ©",
        "print('cafÃ©')\nx = fix('Ã©');\nreturn x;",
    ],
)
def test_code_and_quotes_in_code_are_left_alone(mend: Mojibake, code: str) -> None:
    assert mend(code) == code
    if "\n" not in code:
        assert mend(f"Le cafÃ© est là: {code}") == f"Le café est là: {code}"


def test_a_text_about_mojibake_is_left_alone(mend: Mojibake) -> None:
    text = "If UTF-8 is read as Latin-1, then é becomes Ã© on the page."
    assert mend(text) == text


def test_a_missing_package_is_said_when_the_step_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_ftfy(name: str, *rest: Any) -> Any:
        if name == "ftfy":
            raise ImportError("No module named 'ftfy'")
        return real_import(name, *rest)

    _ftfy.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_ftfy)
    with pytest.raises(DependencyError) as raised:
        Mojibake()
    assert "pip install 'tutelage[curate]'" in str(raised.value)
    assert "curate.normalize.mojibake=false" in str(raised.value)
    monkeypatch.undo()
    _ftfy.cache_clear()
