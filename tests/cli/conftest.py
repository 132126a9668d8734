"""The house that writes a journal is the replay's, and the scenes that it plays are the core's."""

import sys
from pathlib import Path

import pytest

for place in ("core", "replay"):
    sys.path.insert(0, str(Path(__file__).parents[1] / place))
pytest.register_assert_rewrite("core_exchange", "replay_kit")
