"""The memory maps of this process, of which Linux allows 65,530.

A compiled program takes 200 to 600 of them on each device, three for each kernel. XLA ends the
process where it gets no more.
"""

from pathlib import Path

MAPS = Path("/proc/self/maps")
LIMIT = Path("/proc/sys/vm/max_map_count")

LEAST = 500
"""The least number of maps that a program is taken to need.

The growth that is counted while it is compiled can be less, because other programs are freed.
"""


def in_use() -> int:
    """Return how many memory maps this process has; 0 where the system does not tell."""
    return len(MAPS.read_bytes().splitlines()) if MAPS.exists() else 0


def room_for(maps: int) -> int | None:
    """Return how often half of the maps that are left hold a program; None if there is no limit.

    Args:
        maps: the number of maps that the program takes once.
    """
    if not (MAPS.exists() and LIMIT.exists()):
        return None
    left = max(int(LIMIT.read_text()) - in_use(), 0)
    return left // 2 // max(maps, LEAST)
