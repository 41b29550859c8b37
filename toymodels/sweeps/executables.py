"""A function compiled for those devices of this process that have room for it."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from toymodels.engine import memory_maps
from toymodels.engine.devices import devices

Options: TypeAlias = dict[str, bool | int | str]

LOADING_SECONDS = 0.1
"""About how long a device needs to load a program that is in the cache of compiled programs."""


class Executables:
    """One function, compiled for each device by the first thread that needs it there.

    Attributes:
        loading_seconds: about how long another device needs to load the function, or to compile it
            where nothing is cached.
        num_devices: how many devices, from the first on, have room for the function; see
            `engine.memory_maps`.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Any, options: Options, *, cached: bool
    ):
        """Compile a function for the first device.

        Args:
            function: the function.
            arguments: arguments of the shapes that it will be called with.
            options: the options of XLA.
            cached: whether other devices will find the program in the cache.
        """
        self._function = function
        self._arguments = arguments
        self._options = options
        self._compiled: dict[int, Any] = {}
        self._locks = [threading.Lock() for _ in devices()]
        began, before = time.perf_counter(), memory_maps.in_use()
        self.on(0)  # a program that cannot be compiled ends the sweep here, before it starts
        self.loading_seconds = LOADING_SECONDS if cached else time.perf_counter() - began
        others = len(devices()) - 1
        room = memory_maps.room_for(memory_maps.in_use() - before)
        self.num_devices = 1 + (others if room is None else min(room, others))

    def on(self, position: int) -> Any:
        """Return the function compiled for the device at this position."""
        with self._locks[position]:
            compiled = self._compiled.get(position)
            if compiled is None:
                arguments = jax.device_put(self._arguments, devices()[position])
                # JAX keeps what it compiled for as long as the function exists. This `partial` is
                # a function of its own, so that one device can be forgotten without the others.
                own = functools.partial(self._function)
                jitted = jax.jit(own, compiler_options=self._options)
                compiled = self._compiled[position] = jitted.lower(*arguments).compile()
            return compiled  # `keep_first` may have removed it meanwhile, after a second Ctrl-C

    def keep_first(self) -> None:
        """Forget the function on all devices but the first, to free their memory."""
        for position in range(1, len(self._locks)):
            self._compiled.pop(position, None)

    @property
    def num_compiled(self) -> int:
        """The number of devices that have the function."""
        return len(self._compiled)
