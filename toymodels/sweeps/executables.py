"""A function compiled for the devices of this process, as far as they have room for it."""

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
"""How long a device needs, about, to load a program that is in the cache of compiled programs."""


class Executables:
    """One function, compiled for each device by the first thread that needs it there.

    Attributes:
        loading_seconds: how long another device needs to get the function, about.
        num_devices: how many devices have room for the function; see `engine.memory_maps`.
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
        room = memory_maps.room_for(memory_maps.in_use() - before)
        others = len(devices()) - 1
        self.num_devices = 1 + (others if room is None else min(room, others))

    def on(self, position: int) -> Any:
        """Return the function compiled for the device at this position."""
        with self._locks[position]:
            if position not in self._compiled:
                arguments = jax.device_put(self._arguments, devices()[position])
                # JAX keeps what it compiled for a function as long as there is the function, and
                # a `partial` is a function of its own.
                own = functools.partial(self._function)
                jitted = jax.jit(own, compiler_options=self._options)
                self._compiled[position] = jitted.lower(*arguments).compile()
            return self._compiled[position]

    def keep_first(self) -> None:
        """Forget the function on all devices but the first, to free their memory."""
        for position in range(1, len(self._locks)):
            self._compiled.pop(position, None)

    @property
    def num_compiled(self) -> int:
        """The number of devices that have the function."""
        return len(self._compiled)
