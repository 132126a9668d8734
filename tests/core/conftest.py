"""Makes the asserts of the helpers as talkative as those of the tests."""

import pytest

pytest.register_assert_rewrite("core_playbook", "core_exchange")
