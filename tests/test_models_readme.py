"""The page that says what is believed of each system is whole, and what is generated of it is current."""

from __future__ import annotations

import re

import pytest
from support.models_readme import README, rewritten
from support.tables import for_each

from piapi_async.models import SYSTEMS

TEXT = README.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
MARKS = {"page", "seen", "one", "guess"}


def test_its_tables_are_the_codes_own() -> None:
    assert rewritten(TEXT) == TEXT, "run: python tests/support/models_readme.py"


def test_it_has_a_section_for_each_system_in_their_order() -> None:
    assert list(SECTIONS) == list(SYSTEMS)


@for_each("system", SYSTEMS)
def test_it_says_of_each_system_how_sure_it_is(system: str) -> None:
    beliefs = SECTIONS[system].partition("<!-- end -->")[2]
    marks = re.findall(r"\*\*(\w+)\*\*", beliefs)

    assert marks
    assert set(marks) <= MARKS


def test_a_system_without_a_place_is_told_of() -> None:
    with pytest.raises(ValueError, match="0 places for ace_step"):
        rewritten("nothing")
