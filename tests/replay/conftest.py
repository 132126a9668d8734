"""The kits of the core's tests, which drive the machines that are replayed here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
pytest.register_assert_rewrite("core_playbook", "core_exchange", "memory_kit", "replay_kit")
