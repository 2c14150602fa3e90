"""Output in an encoding that lacks some characters: each gets a stand-in of ASCII, and nothing is lost.

`nelbo evaluate RUN > card.txt` where the locale is C writes ASCII, which has no ± sign; it gets `+-`.
"""

import codecs
import io
import sys
import unicodedata

ERRORS = "nelbo-stand-ins"
STAND_INS = str.maketrans({
    "±": "+-", "×": "x", "·": "-", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "↑": "^", "↓": "v",
    "†": "+", "≤": "<=", "≥": ">=", "≈": "~", "β": "beta", "σ": "sigma", "μ": "mu", "µ": "u", "ß": "ss", "ø": "o",
    "æ": "ae", "’": "'", "‘": "'", "“": '"', "”": '"', "─": "-", "━": "-", "╸": "-", "╺": "-", "│": "|", "╭": "+",
    "╮": "+", "╰": "+", "╯": "+",
})  # fmt: skip


def stand_in(character: str) -> str | bytes:
    """Return ASCII in place of a character: e for é; of a letter of another script its number, as \\u4e2d."""
    if (
        0xDC80 <= ord(character) <= 0xDCFF
    ):  # a byte of a file name that is no text, which goes out as it came in
        return bytes([ord(character) - 0xDC00])
    plain = unicodedata.normalize("NFKD", character.translate(STAND_INS)).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return stand_in(error.object[error.start]), error.start + 1


def make_safe() -> None:
    """Let stdout and stderr write every character, whatever their encoding; a choice of the user's own stays."""
    codecs.register_error(ERRORS, _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors=ERRORS)
    # Python's own choice for stderr cannot be told from a user's.
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr.errors != ERRORS:
        sys.stderr.reconfigure(errors=ERRORS)
