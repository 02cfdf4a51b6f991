"""Kinds of personal data: how each is found, and what shows that it is none.

Checks by number where there are any: IBAN (ISO 13616, modulo 97), cards (ISO/IEC 7812, Luhn).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tutelage.curate.screens import ODD_DIGIT, any_of

_RESERVED: Final = re.compile(
    r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost|domain|yourdomain|yourcompany|company|email|mail|sample)\.\w+$"
    r"|\.(?:example|test|invalid|local|png|jpe?g|gif|svg|py|js)$|^(?:git|user|username|your|you|name|email|someone|me)@",
    re.IGNORECASE,
)
"""Addresses that are nobody's: names that RFC 2606 reserves, their like, and `git@`."""
_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "BA": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24,
    "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GE": 22, "GR": 27, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18,
    "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26,
    "UA": 29,
}  # fmt: skip
"""Characters of an account number by country. Source: ISO 13616, the registry of SWIFT."""
_TEST_CARDS: Final = frozenset(
    {
        "4111111111111111",
        "4242424242424242",
        "5555555555554444",
        "378282246310005",
        "4012888888881881",
        "5105105105105100",
    }
)
"""Numbers that payment providers publish for tests."""
_KEY_PREFIXES: Final = (
    "AKIA", "ASIA", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-", "sk_live_", "rk_live_", "xoxb-", "xoxp-",
    "AIza", "hf_", "npm_", "pypi-", "-----BEGIN",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PersonalKind:
    """A kind of personal data.

    Attributes:
        name: in the settings and the ledger.
        hint: whether the kind can be in a text; far cheaper than the pattern.
        pattern: finds what may be one.
        holds: whether what was found is one.
    """

    name: str
    hint: Callable[[str], bool]
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]


def luhn_holds(number: str) -> bool:
    """Whether the check digit of a card's number is right. Source: ISO/IEC 7812-1, annex B."""
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    return sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) == 10 * (
        (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) // 10
    )


def iban_holds(number: str) -> bool:
    """Whether an account number has its country's length and the right check digits. Source: ISO 13616, ISO 7064."""
    plain = re.sub(r"\s", "", number).upper()
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _is_card(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return len(set(digits)) > 2 and digits not in _TEST_CARDS and luhn_holds(digits)


def _is_phone(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return 9 <= len(digits) <= 15 and len(set(digits)) > 3 and "555" not in digits[-10:-4] and "12345" not in digits


def _is_public_address(address: str) -> bool:
    if all(len(part) == 1 for part in address.split(".")):
        return False  # as good as always the number of a version
    try:
        return (
            not address.endswith(".0")
            and ipaddress.ip_address(address).is_global
            and address not in ("8.8.8.8", "8.8.4.4", "1.1.1.1")
        )
    except ValueError:
        return False


def has_digits(text: str) -> bool:
    """Whether six digits stand together, with at most two separators between any two: a number or an address."""
    return _DIGITS.search(text) is not None


_DIGITS: Final = re.compile(r"\d(?:[ ().-]{0,2}\d){5}")
MAY_BE_PERSONAL: Final = "|".join(
    (
        any_of((*_KEY_PREFIXES, "@")),
        r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2}",
        r"[3-6][0-9]{3}(?:[ -]?[0-9]{4}){3}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}",
        r"(?:^|[^0-9A-Za-z_.,/=+-])\+[0-9]{1,3}[ .-]?(?:\(0?[0-9]{1,4}\)[ .-]?)?[0-9]{2}[ .-]?[0-9]{2}",
        r"(?:\([0-9]{3}\) ?|[0-9]{3}[.-])[0-9]{3}[.-][0-9]{4}",
        r"(?:[0-9]{1,3}\.){3}[0-9]",
        ODD_DIGIT,
    )
)
"""What every text has in which a kind is, as a pattern of `screens`: the beginnings of keys, and the patterns below
without most of what stands around them."""
WRITTEN: Final = (
    PersonalKind(
        "key",
        lambda text: any(prefix in text for prefix in _KEY_PREFIXES),
        re.compile(
            r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pos]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}"
            r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|[sr]k_live_[A-Za-z0-9]{20,}|xox[bp]-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z]{34}"
            r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,})\b"
            r"|-----BEGIN (?:RSA |EC |OPENSSH |DSA )?PRIVATE KEY-----[A-Za-z0-9+/=\s]+"
        ),
        lambda key: len(set(key)) > 12,
    ),
    PersonalKind(
        "email",
        lambda text: "@" in text,
        re.compile(r"\b[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b"),
        lambda address: not _RESERVED.search(address),
    ),
)
"""Kinds that are not numbers."""
NUMBERS: Final = (
    PersonalKind(
        "iban",
        has_digits,
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        iban_holds,
    ),
    PersonalKind(
        "card",
        has_digits,
        re.compile(r"(?<![\d.,-])(?:[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\d.-])"),
        _is_card,
    ),
    PersonalKind(
        "phone",
        has_digits,
        re.compile(
            r"(?<![\w.,/=+-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
            r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4})(?![\w-]|[.,]\d)"
        ),
        _is_phone,
    ),
    PersonalKind(
        "ip",
        has_digits,
        re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w/-]|\.\d)"),
        _is_public_address,
    ),
)
"""Kinds that have six digits at least, in the order they are looked for."""
