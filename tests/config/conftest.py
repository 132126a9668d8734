"""Fixtures of this room's tests."""

from collections.abc import Callable

import pytest
from config_samples import GOOD, make_listing

from mmd.config.load import load_text
from mmd.config.model import Config
from mmd.domain.instruments import Instrument


@pytest.fixture
def listing() -> dict[str, Instrument]:
    return make_listing()


@pytest.fixture
def config_with() -> Callable[..., Config]:
    """GOOD with pieces of its text replaced."""

    def make(*changes: tuple[str, str]) -> Config:
        text = GOOD
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        return load_text(text)

    return make
