r"""Text from elsewhere, made fit for a terminal.

Names, errors and log lines come from servers and from files. A terminal obeys what it is sent: an escape sequence can
move the cursor, hide a line or rename the window. So nothing that was not written here goes out as it came: colours
are dropped, every other character that does not show itself becomes its escape (``\x1b``, ``\u202e``), and what was
one line stays one.

    clean("ok\x1b[31m!\x1b[0m\x07")     ->  "ok!\\x07"
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's control, format (which turn the direction of text), surrogate, and line and paragraph separators."""


def clean(text: str) -> str:
    """The text as one line of visible characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, _COLOUR.sub("", text)))


def clean_lines(text: str) -> str:
    """The same, but lines stay lines (and nothing but ``\\n`` ends one)."""
    return "\n".join(map(clean, text.split("\n")))


def cleaned(value: Any) -> Any:
    """A document with every text in it cleaned, keys as well."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
