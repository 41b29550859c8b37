"""The memory maps of this process, of which Linux allows 65,530 unless it was told otherwise.

A memory map is a piece of memory with rights of its own. A compiled program takes 200 to 600 of
them on each device, which are three for each kernel. XLA ends the process when Linux refuses one.
"""

from pathlib import Path

MAPS = Path("/proc/self/maps")
LIMIT = Path("/proc/sys/vm/max_map_count")

LEAST = 500
"""The least number of maps that a program is taken to need.

The maps of this process are counted before and after it is compiled. Meanwhile others may be freed,
so the difference can be too small.
"""


def in_use() -> int:
    """Return how many memory maps this process has; 0 if the system does not tell."""
    return len(MAPS.read_bytes().splitlines()) if MAPS.exists() else 0


def limit() -> int | None:
    """Return how many memory maps this process may have; None if the system sets no limit."""
    return int(LIMIT.read_text()) if MAPS.exists() and LIMIT.exists() else None


def room_for(maps: int) -> int | None:
    """Return how many copies of a program fit into half of the maps that are left.

    Args:
        maps: the number of maps that one copy takes.

    Returns:
        The number of copies; None if there is no limit.
    """
    if (most := limit()) is None:
        return None
    return max(most - in_use(), 0) // 2 // max(maps, LEAST)


def are_scarce() -> bool:
    """Return whether more than a third of the maps are in use.

    Programs that are to be used again are kept until then. The other two thirds are left for the
    copies of the program that runs on other devices; see `room_for`.
    """
    most = limit()
    return most is not None and in_use() > most // 3
