"""What axe-core finds on a page."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from playwright.sync_api import Frame, Page

from mlops_tasks.config import PROJECT

AXE = PROJECT / "plugins" / "mlops_ui" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")


@dataclass(frozen=True)
class Violation:
    """A rule of axe-core's, and the elements that break it."""

    rule: str
    says: str
    elements: tuple[str, ...]


@cache
def _script() -> str:
    return AXE.read_text()


def serious(page: Page | Frame) -> list[Violation]:
    """Serious and critical violations on a page as it is now."""
    # The page's policy allows only its own scripts; the debugger's evaluation is not bound by it.
    page.evaluate(_script() + "; undefined")
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        Violation(
            each["id"],
            each["help"],
            tuple(f"{node['html'][:200]} {node['failureSummary'][:300]}" for node in each["nodes"]),
        )
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]
