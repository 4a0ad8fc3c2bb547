"""docs/http-api.md says what the front does: it is held to the front's own tables."""

from pathlib import Path

import pytest

from qrun.gateway.params import _CHECKS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "http-api.md").read_text()


def row_of(kind: str) -> str:
    """The page's row of parameters of one route."""
    return next(line for line in PAGE.splitlines() if line.startswith(f"| {kind} |"))


@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages"])
def test_every_checked_parameter_stands_on_the_page(kind):
    """A parameter that is checked or refused is documented on its route's row."""
    missing = [name for name in _CHECKS[kind] if f"`{name}`" not in row_of(kind)]

    assert missing == []


@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages"])
def test_the_page_promises_no_parameter_that_is_not_checked(kind):
    """What the page lists is in the table; `medium` is a value."""
    named = set(row_of(kind).split("`")[1::2]) - {"medium"}

    assert named <= set(_CHECKS[kind])
