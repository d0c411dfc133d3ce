"""What messages say of long lists."""

import pytest

from mlops_tasks.errors import excerpt, first_few


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["A"], "A"),
        (list("ABCDE"), "A, B, C, D, E"),
        (list("ABCDEFG"), "A, B, C, D, E and 2 more"),
    ],
)
def test_the_first_few_names_are_listed_and_the_others_counted(names: list[str], said: str) -> None:
    """Up to five, from whatever iterates."""
    assert first_few(names) == first_few(iter(names)) == said


def test_fewer_are_listed_where_asked_and_foreign_names_are_quoted() -> None:
    """By the caller, with `excerpt`."""
    assert first_few(map(excerpt, ["A\n", "B", "C"]), 2) == r"'A\n', 'B' and 1 more"
    assert first_few(list("ABCDEFG"), of=100) == "A, B, C, D, E and 95 more"
    assert first_few(["A", "B"], of=2) == "A, B"
