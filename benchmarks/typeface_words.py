"""Pseudo text of benchmarks.typeface_documents: what no model of English can guess and so has to be read."""

import random
import string
from collections.abc import Callable

_ONSETS = (
    "b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr fl fr gl gr ph pl pr sc sh sk sl sm sn sp "
)
_ONSETS += "st str sw th tr tw wh wr kn"
_VOWELS = "a e i o u ai ea ee ie oa oo ou au ay y io"
_CODAS = (
    "b d f g k l m n p r s t x z ck ch ct ft ld lt mp nd ng nk nt pt rd rk rm rn rt sh sk st th ss ll ff gh"
)
_ACCENTS = "àáâãäåæçèéêëìíîïñòóôõöøùúûüýßÀÉÈÖÜÄÇÑØÅ"
_SIGNS = ".,:;!?-()[]{}<>/\\|&%$#@*+=~^_'\"`" + "–—‘’“”…•€£§©®°±×÷µ¶¿¡«»²³¹½¼¥"
_ENDS = [".", ".", ",", ",", ",", ";", ":", "?", "!", "…", " –", " —", ")", "”", "’s"]
_TOP = ["com", "org", "net", "de", "io", "edu", "co.uk"]
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
_UNITS = ["kg", "km", "MB", "GHz", "%", "°C", "€", "£", "ms", "cm²", "µm", "V"]


def word(rng: random.Random) -> str:
    """One pseudo-word in lower case; one in eight is of letters at random."""
    if rng.random() < 0.12:
        letters = string.ascii_letters + string.digits if rng.random() < 0.5 else string.ascii_lowercase
        return "".join(rng.choices(letters, k=rng.randint(2, 10)))
    made = ""
    for _ in range(rng.choices([1, 2, 3, 4], [30, 40, 22, 8])[0]):
        made += rng.choice(_ONSETS.split()) if rng.random() < 0.85 else ""
        made += rng.choice(_VOWELS.split())
        made += rng.choice(_CODAS.split()) if rng.random() < 0.55 else ""
    return made


def _digits(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices(string.digits, k=rng.randint(least, most)))


def _date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1600, 2040)
    forms = [
        f"{day} {_MONTHS[month - 1]} {year}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}.{month:02d}.{year}",
    ]
    return rng.choice([*forms, f"{month}/{day}/{year % 100:02d}", f"{_MONTHS[month - 1][:3]} {day}, {year}"])


def _price(rng: random.Random) -> str:
    amount = f"{rng.randint(0, 999)}.{rng.randint(0, 99):02d}"
    thousands = f"{rng.randint(1, 99)},{rng.randint(0, 999):03d}"
    return rng.choice("$€£¥") + rng.choice([amount, thousands, f"{thousands}.{rng.randint(0, 99):02d}"])


def _number(rng: random.Random) -> str:
    version = ".".join(_digits(rng, 1, 2) for _ in range(rng.randint(2, 4)))
    forms = [_digits(rng, 1, 6), version, f"v{version}", f"{_digits(rng, 1, 3)}.{_digits(rng, 1, 4)}"]
    forms += [
        f"{_digits(rng, 1, 3)} {rng.choice(_UNITS)}",
        f"0x{rng.randrange(2**32):x}",
        f"[{_digits(rng, 1, 3)}]",
    ]
    return rng.choice([*forms, f"({_digits(rng, 1, 2)})", f"{_digits(rng, 1, 3)}–{_digits(rng, 1, 3)}"])


def _address(rng: random.Random) -> str:
    host = f"{word(rng)}.{rng.choice(_TOP)}"
    path = "/".join(word(rng) for _ in range(rng.randint(1, 3)))
    mail = f"{word(rng)}{rng.choice(['', '.', '_', '-'])}{word(rng)}@{host}"
    forms = [f"https://{host}/{path}", f"http://www.{host}/", mail, f"<{mail}>", f"/{path}.{word(rng)[:3]}"]
    return rng.choice(
        [
            *forms,
            f"~/{path}",
            f"C:\\{path}".replace("/", "\\"),
            f"{host}/{path}?{word(rng)}={_digits(rng, 1, 4)}",
        ]
    )


def _code(rng: random.Random) -> str:
    one, two, three = (
        rng.choice([word(rng), f"{word(rng)}_{word(rng)}", word(rng).title()]) for _ in range(3)
    )
    number = _digits(rng, 1, 3)
    return rng.choice(
        [
            f"{one}({two}, {number})",
            f"if ({one} == {number}) {{",
            f"{one} = {two}[{number}] + {three};",
            f"return {one} ? {two} : {three};",
            f"for {one} in {two}({number}):",
            f"#include <{one}.h>",
            f"--{one}={two}",
            f'"{one}": "{two}",',
            f"{one}->{two} |= {three} & ~{number};",
            f"$ {one} -{two[0]} {three} > {two}.txt",
            f"{one} <= {number} && !{two} || {three} != {number}",
            f"{one}::{two}<{three}> {one[0]}{{{number}}};",
            f"@{one} \\{two} ${three} %{one[0]} ^{two[0]} `{three}`",
        ]
    )


def _token(rng: random.Random) -> str:
    kinds: list[Callable[[random.Random], str]] = [word, _number, _date, _price, _address, _code]
    return rng.choices(kinds, [78, 9, 3, 3, 4, 3])[0](rng)


def pseudo_text(rng: random.Random, length: int) -> str:
    """Return one line of pseudo-words, numbers, addresses and signs of about `length` characters."""
    tokens: list[str] = []
    accents, signs = rng.random() < 0.15, rng.random() < 0.2
    while sum(map(len, tokens)) + len(tokens) < length:
        token = _token(rng)
        if accents and rng.random() < 0.4:
            place = rng.randrange(len(token) + 1)
            token = token[:place] + rng.choice(_ACCENTS) + token[place + 1 :]
        if signs and rng.random() < 0.3:
            token = rng.choice([token + rng.choice(_SIGNS), rng.choice(_SIGNS) + token, rng.choice(_SIGNS)])
        elif rng.random() < 0.14:
            token += rng.choice(_ENDS)
        elif rng.random() < 0.04:
            token = rng.choice(["({})", "“{}”", "‘{}’", '"{}"', "[{}]", "'{}'"]).format(token)
        if not tokens or tokens[-1][-1] in ".?!" or rng.random() < 0.08:
            token = token[:1].upper() + token[1:]
        tokens.append(token)
    return " ".join(tokens)


def pseudo_code(rng: random.Random) -> str:
    return " " * (4 * rng.choices([0, 1, 2], [5, 3, 2])[0]) + _code(rng)


def cell_text(rng: random.Random) -> str:
    """What stands in a cell of a table of numbers."""
    kinds: list[Callable[[random.Random], str]] = [word, _number, _date, _price]
    made = rng.choices(kinds, [4, 4, 1, 2])[0](rng)
    return made.capitalize() if rng.random() < 0.3 else made
