"""The world's type for those that the world itself imports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim_world import World
else:
    World = Any

__all__ = ["World"]
