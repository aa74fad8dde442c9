"""Finding answers and questions in what was said; nothing here knows which answer is right."""

import re
from fractions import Fraction

MAX_NUMBER = 100  # characters of a number that is compared by value; converting long ones is quadratic

# A number that goes on ("3.5", "3 . 5", "9**9", "1,000", "3x") is not the whole number it begins with.
_NUMBERS = re.compile(r"\bans\b((?>(?:\s+(?:-\s?)?\d+)+))(?!\w|\s*[.,:/*^+]+\s*\d)")
_NUMBER = re.compile(r"(-?)\s?0*(\d+)")
_TEXT = re.compile(r"\bans\b(.*?)(?=\bans\b|\bask\b|\Z)", re.DOTALL)
_ASK = re.compile(r"\bask\b")
_BOXED = re.compile(r"\\boxed\s*\{")
_QUESTION = re.compile(r"\?(?=[\s\"')\]*]|\Z)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))|\$")
_SPACE = re.compile(r"\s+|(?<!\\)\\[,;:! ]")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_STYLE = re.compile(r"\\(?:text[a-z]*|math[a-z]+)(?![a-z])|[{}]")
_SPLIT = re.compile(r"\d\s+\d")
_PLAIN = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?|\.\d+)(?:/(\d+))?|\\[dt]?frac\{(\d+)\}\{(\d+)\})")


def visible(utterance: str) -> str:
    """The utterance without hidden reasoning, ``<think> ... </think>``; one that was cut off hides all that follows."""
    if "think>" not in utterance:
        return utterance
    return utterance.rpartition("</think>")[2].partition("<think>")[0]


def marked_numbers(utterance: str) -> list[str]:
    """Whole numbers behind each ``ans``: ``"ans 1 3 2"`` gives ``["1 3 2"]``, without leading zeros of a number.

    A word-level model spells a minus as a word of its own: ``"ans - 5"`` is ``["-5"]``.
    """
    return [" ".join(s + n for s, n in _NUMBER.findall(found)) for found in _NUMBERS.findall(utterance)]


def marked_texts(utterance: str) -> list[str]:
    """Text behind each ``ans`` up to the next ``ans``, ``ask`` or the end of the turn; empty ones are none."""
    return [text for found in _TEXT.findall(utterance) if (text := " ".join(found.split()))]


def marked_question(utterance: str) -> bool:
    """Whether the word ``ask`` occurs."""
    return _ASK.search(utterance) is not None


def boxed_texts(utterance: str) -> list[str]:
    r"""Contents of each ``\boxed{...}`` with balanced braces; one that was cut off or is empty is none."""
    contents = []
    for opening in _BOXED.finditer(utterance):
        end = _closing(utterance, opening.end())
        if end is not None and (content := utterance[opening.end() : end].strip()):
            contents.append(content)
    return contents


def _closing(text: str, start: int) -> int | None:
    """Place of the brace that closes one opened before ``start``; escaped braces do not count."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def asks(utterance: str) -> bool:
    """Whether a sentence ends in a question mark (our reading of "a question" where nothing marks it)."""
    return "?" in utterance and _QUESTION.search(utterance) is not None


def trimmed(answer: str) -> str:
    """Without dollar signs, commas between thousands, and a full stop at the end."""
    return _THOUSANDS.sub("", answer).strip().removesuffix(".")


def normalized(answer: str) -> str:
    """`trimmed`, and without any space."""
    return _SPACE.sub("", trimmed(answer))


def as_words(answer: str) -> str:
    r"""`normalized`, in lower case and without LaTeX: ``\text{...}`` is its content, ``\frac{a}{b}`` is ``a/b``."""
    return normalized(_STYLE.sub("", _FRACTION.sub(r"\1/\2", answer))).casefold()


def as_number(answer: str) -> Fraction | None:
    r"""Exact value of an integer, a decimal, ``a/b`` or ``\frac{a}{b}``; None for anything else, or if it is long."""
    if len(answer) > MAX_NUMBER or _SPLIT.search(answer):
        return None
    match = _PLAIN.fullmatch(normalized(answer))
    if match is None:
        return None
    sign, number, below, top, bottom = match.groups()
    denominator = int(below or bottom or 1)
    if denominator == 0:
        return None
    value = Fraction(number or top) / denominator
    return -value if sign == "-" else value


def as_integer(answer: str) -> int | None:
    """Value of a whole number, None for anything else."""
    if len(answer) <= MAX_NUMBER and answer.removeprefix("-").isdecimal():  # the common case, many times faster
        return int(answer)
    value = as_number(answer)
    return int(value) if value is not None and value.denominator == 1 else None
