"""Which language a reply is in: right or silent on replies in ten languages, silent on what is no prose."""

from __future__ import annotations

import pytest

from tutelage.evaluate.language import prose_language

REPLIES = {
    "en": (
        "Thank you for writing to us. Your parcel left the warehouse on Tuesday and should arrive by Friday.",
        "The capital of Australia is Canberra, not Sydney.",
        "Boil the eggs for seven minutes, then put them into cold water so that they peel easily.",
        "I cannot open the attachment. Could you send it again as a plain text file?",
    ),
    "de": (
        "Vielen Dank für Ihre Nachricht. Ihr Paket hat das Lager am Dienstag verlassen und kommt bis Freitag an.",
        "Die Hauptstadt von Australien ist Canberra und nicht Sydney.",
        "Kochen Sie die Eier sieben Minuten lang und legen Sie sie danach in kaltes Wasser.",
        "Ich kann den Anhang leider nicht öffnen. Könnten Sie ihn noch einmal schicken?",
    ),
    "fr": (
        "Merci pour votre message. Votre colis a quitté l'entrepôt mardi et devrait arriver avant vendredi.",
        "La capitale de l'Australie est Canberra, et non Sydney.",
        "Faites cuire les œufs pendant sept minutes, puis plongez-les dans de l'eau froide.",
        "Je n'arrive pas à ouvrir la pièce jointe. Pourriez-vous me la renvoyer ?",
    ),
    "es": (
        "Gracias por su mensaje. Su paquete salió del almacén el martes y debería llegar antes del viernes.",
        "La capital de Australia es Canberra y no Sídney.",
        "Cueza los huevos durante siete minutos y después póngalos en agua fría.",
        "No puedo abrir el archivo adjunto. ¿Podría enviarlo otra vez como texto?",
    ),
    "it": (
        "Grazie per il suo messaggio. Il pacco è partito dal magazzino martedì e dovrebbe arrivare entro venerdì.",
        "La capitale dell'Australia è Canberra, non Sydney.",
        "Fate bollire le uova per sette minuti e poi mettetele nell'acqua fredda.",
        "Non riesco ad aprire l'allegato. Potrebbe mandarmelo di nuovo come testo?",
    ),
    "pt": (
        "Obrigado pela sua mensagem. A sua encomenda saiu do armazém na terça-feira e deve chegar até sexta-feira.",
        "A capital da Austrália é Camberra e não Sydney.",
        "Cozinhe os ovos durante sete minutos e depois ponha-os em água fria.",
        "Não consigo abrir o anexo. Poderia enviá-lo mais uma vez como texto?",
    ),
    "nl": (
        "Bedankt voor uw bericht. Uw pakket heeft het magazijn dinsdag verlaten en komt voor vrijdag aan.",
        "De hoofdstad van Australië is Canberra en niet Sydney.",
        "Kook de eieren zeven minuten en leg ze daarna in koud water, dan zijn ze goed te pellen.",
        "Ik kan de bijlage niet openen. Kunt u die nog een keer als tekst sturen?",
    ),
    "pl": (
        "Dziękujemy za wiadomość. Paczka opuściła magazyn we wtorek i powinna dotrzeć do piątku.",
        "Stolicą Australii jest Canberra, a nie Sydney, jak wielu sądzi.",
        "Gotuj jajka przez siedem minut, a potem włóż je do zimnej wody.",
        "Nie mogę otworzyć załącznika. Czy można go wysłać jeszcze raz?",
    ),
    "ru": (
        "Спасибо за ваше сообщение. Посылка покинула склад во вторник и должна прийти до пятницы.",
        "Столица Австралии — Канберра, а не Сидней, как многие думают.",
        "Варите яйца семь минут, а потом положите их в холодную воду.",
        "Я не могу открыть вложение. Вы можете отправить его ещё раз?",
    ),
    "zh": (
        "感谢您的来信。您的包裹已于星期二离开仓库，预计星期五之前送达。",
        "澳大利亚的首都是堪培拉，不是悉尼。",
        "把鸡蛋煮七分钟，然后放进冷水里，这样容易剥壳。",
        "我打不开附件，您能再发一次吗？最好是纯文本。",
    ),
    "ja": (
        "お問い合わせありがとうございます。荷物は火曜日に倉庫を出て、金曜日までに届く予定です。",
        "オーストラリアの首都はシドニーではなくキャンベラです。",
        "卵を七分ゆでてから、冷たい水に入れてください。",
        "添付ファイルが開けません。もう一度送っていただけますか。",
    ),
}

NO_PROSE = {
    "a word": "Canberra",
    "too short": "Yes, it is.",
    "a word again and again": "haha " * 30,
    "nothing": "",
    "numbers": "12.50, 13.75 and 19.99 make 46.24",
    "JSON": '{"item": "lamp", "comment": "Bitte liefern Sie das Paket nicht an der Haustür ab, danke sehr."}',
    "a JSON list": '["the first of many", "and the second one of them", "and then the third one"]',
    "JSON that was cut": '{"item": "lamp", "comment": "Bitte liefern Sie das Paket nicht an der Haustür ab',
    "code in a fence": "```python\ndef for_all(the, of, and_):\n    return [is_in(x) for x in the if of(x)]\n```",
    "a fence that was cut": "```\nfor the in of:\n    print(the) # and this is what we do with all of them here\n",
    "code alone": "for (let i = 0; i < items.length; i++) { total += items[i].price * items[i].count; }",
    "a formula": "$$\\int_0^1 x^2 \\, dx = \\left[ \\frac{x^3}{3} \\right]_0^1 = \\frac{1}{3}$$",
    "an address": "https://example.org/the/way/of/a/row/and/all/that/is/in/it.html",
}


@pytest.mark.parametrize("language", REPLIES)
def test_no_reply_is_taken_for_one_in_another_language(language: str) -> None:
    assert {prose_language(text) for text in REPLIES[language]} <= {language, None}


def test_most_languages_are_told() -> None:
    """As docs/evaluate.md has it: nothing decides on one of Spanish, Portuguese and Russian each."""
    told = {language: [prose_language(text) == language for text in texts] for language, texts in REPLIES.items()}

    assert {language for language, right in told.items() if not all(right)} == {"es", "pt", "ru"}
    assert sum(map(sum, told.values())) == 41


@pytest.mark.parametrize("kind", NO_PROSE)
def test_what_is_no_prose_has_no_language(kind: str) -> None:
    assert prose_language(NO_PROSE[kind]) is None


def test_code_inside_of_prose_says_nothing_of_its_language() -> None:
    prose = "Die Schleife geht alle Zeilen durch und zählt die Wörter, die nicht leer sind:"
    code = "```python\nfor the in of_this:\n    if the is not that and the in all_of_them:\n        count += 1\n```"

    assert prose_language(f"{prose}\n{code}") == "de"
    assert prose_language(f"{prose} `for the in of_this if the is not that and in all_of_them`") == "de"
