"""Why a file cannot be read, in words of our own: those of the system and of parsers quote what is in it."""

import os


def reason_of(error: Exception) -> str:
    """What went wrong, without a byte of the file."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return "it is damaged, or in another format"
