"""Recorded and composed messages, by what they are."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmd.domain.instruments import Instrument
from mmd.exchanges.deribit.instruments import decode_instruments

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def recorded() -> list[dict[str, Any]]:
    """The recorded messages of 2021, numbers as text so that nothing is lost on the way."""
    lines = (DATA / "deribit-2021-07-22.jsonl").read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


@pytest.fixture(scope="session")
def listed() -> dict[str, Instrument]:
    """The recorded instruments."""
    raw = msgspec.json.decode((DATA / "instruments-2021.json").read_bytes(), type=dict[str, msgspec.Raw])["result"]
    found, refused = decode_instruments(raw, "deribit")
    assert not refused
    return found


@pytest.fixture(scope="session")
def examples() -> dict[str, dict[str, Any]]:
    """The composed messages, by their note."""
    rows = json.loads((DATA / "deribit-examples.json").read_text())["messages"]
    return {row["note"]: row["message"] for row in rows}
