"""Why a dataset need not hold who wrote: personal numbers and addresses are masked before a text becomes an example.

Masks what has a form that can be checked: mail addresses, IBANs (ISO 13616 checksum), card numbers (Luhn), telephone
numbers. Names and street addresses have no form, and are not found.
"""

import re
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-zA-Z]{2,24}\b")
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b")
_CARD = re.compile(r"(?<![\w-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])")
_PHONE = re.compile(r"(?<![\w.,/-])[+(0-9][0-9 ()./-]{6,22}[0-9](?![\w/-])")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")
_IP_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 7, 15  # E.164 allows 15
_NATIONAL_DIGITS = 10  # grouped like a telephone number, but with nothing dialled in front


def redact(text: str) -> tuple[str, int]:
    """(the text with each find replaced by a mask such as `[email]`, how many there were). Masking again finds none."""
    found = 0
    for pattern, mask, is_real in _RULES:
        text, count = _mask(text, pattern, mask, is_real)
        found += count
    return text, found


def _mask(text: str, pattern: re.Pattern[str], mask: str, is_real: Callable[[str], bool]) -> tuple[str, int]:
    found = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal found
        if not is_real(match.group()):
            return match.group()
        found += 1
        return mask

    return pattern.sub(replace, text), found


def _is_email(text: str) -> bool:
    return True


def _is_iban(text: str) -> bool:
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(char) for char in reversed(text) if char.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    """Dialled from abroad or with a trunk zero, or grouped in three; a date or an IP address is neither."""
    digits = sum(map(str.isdecimal, text))
    if _DATE.match(text) or _IP_ADDRESS.match(text) or not _MIN_PHONE_DIGITS <= digits <= _MAX_PHONE_DIGITS:
        return False
    groups = len(re.findall(r"\d+", text))
    dialled = text.startswith(("+", "00")) or (text.startswith(("0", "(")) and groups > 1)
    return dialled or (digits == _NATIONAL_DIGITS and groups == 3)


# In this order: a card number would also read as a telephone number, an IBAN holds what reads as a card number.
_RULES = (
    (_EMAIL, "[email]", _is_email),
    (_IBAN, "[iban]", _is_iban),
    (_CARD, "[card]", _is_card),
    (_PHONE, "[phone]", _is_phone),
)
