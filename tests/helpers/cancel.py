"""Cancel anywhere: run something again and again, each time cancelled at its next checkpoint, and look at what is left.

::

    for cut in every_checkpoint():
        world = ...
        await cut.run(world.do_it)
        assert world.is_consistent()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import trio


class Cut(trio.abc.Instrument):
    """Cancels a scope when a task stops at its k-th checkpoint.

    `run` does it to the calling task; `watch` to the tasks that a predicate picks, counting their steps together.
    `reached` says whether there were that many.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.reached = False
        self._steps = 0
        self._picks: Callable[[trio.lowlevel.Task], bool] = lambda task: False
        self._scope = trio.CancelScope()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._picks(task):
            self._steps += 1
            if self._steps == self.k:
                self.reached = True
                self._scope.cancel()

    async def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Await `function()`, cancelled at the k-th checkpoint of this task."""
        me = trio.lowlevel.current_task()
        with trio.CancelScope() as scope:
            self.watch(lambda task: task is me, scope)
            try:
                await function()
            finally:
                self.stop()

    def watch(self, picks: Callable[[trio.lowlevel.Task], bool], scope: trio.CancelScope) -> None:
        """Cancel `scope` at the k-th checkpoint of the tasks that `picks` picks, until `stop`."""
        self._picks, self._scope = picks, scope
        trio.lowlevel.add_instrument(self)

    def stop(self) -> None:
        """Count no more."""
        trio.lowlevel.remove_instrument(self)


def every_checkpoint(limit: int = 200) -> Iterator[Cut]:
    """One `Cut` for each checkpoint, until one was not reached: then the run was whole."""
    for k in range(1, limit + 1):
        cut = Cut(k)
        yield cut
        if not cut.reached:
            assert k > 1, "nothing was cancelled: is the task counted?"
            return
    raise AssertionError(f"more than {limit} checkpoints")
