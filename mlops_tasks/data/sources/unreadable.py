"""Why a file cannot be read, in words of our own: those of the system and of parsers quote what is in it."""

import os
import re

_ROW_TOO_LONG = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


def reason_of(error: Exception) -> str:
    """What went wrong, without a byte of the file."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is no UTF-8"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if found := _ROW_TOO_LONG.search(str(error)):
        return f"line {found[2]} has {found[3]} cells, the lines before have {found[1]}"
    return "it is torn, or of another format"
