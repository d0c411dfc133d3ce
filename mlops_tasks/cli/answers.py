"""How the result of a verb is printed: as JSON for machines, as text for people."""

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Any

Text = str | Iterable[str]
"""A text, or its lines."""


def tell(arguments: argparse.Namespace, info: Any, text: Text | Callable[[], Text], status: int = 0) -> int:
    """Print a result, with `--json` as JSON, otherwise as text; return the verb's exit status.

    Parameters
    ----------
    info
        A JSON-serialisable value, or a function that returns it.
    text
        The same for people, or a function that returns it. Only the requested form is computed.
    """
    if arguments.json:
        print_json(info() if callable(info) else info)
        return status
    said = text() if callable(text) else text
    for line in [said] if isinstance(said, str) else said:
        print(line, flush=True)
    return status


def print_json(content: Any) -> None:
    """JSON on one line, with sorted keys."""
    print(json.dumps(content, sort_keys=True), flush=True)


def progress(arguments: argparse.Namespace) -> Callable[[str], None]:
    """A function that prints a line immediately; with `--json` it prints nothing."""

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    return say
