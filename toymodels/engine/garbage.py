"""Work during which Python does not look for garbage, because nearly all that it makes is kept.

Python looks for cycles of objects that nothing uses, each time that some hundred new objects have
been made. To import JAX and to trace a cell makes hundreds of thousands of objects that stay. To
look at them again and again took a fifth of the time of the imports.
"""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def no_garbage_collection() -> Generator[None, None, None]:
    """Do not look for garbage, and afterwards treat what is new as old, which is rarely looked at.

    Garbage among the new objects is found when Python next looks at all objects.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else `unfreeze` would undo what another has frozen
                gc.freeze()  # takes all objects out of the generations, and
                gc.unfreeze()  # puts them into the oldest one
            gc.enable()
