"""Work on a Dask client: the active one, an executor whose calls all end, and an error for a client without a scheduler."""

from __future__ import annotations

import functools
import sys
import time
import uuid
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from mlffstore.errors import ExecutorError
from mlffstore.runtime.calls import contained

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds to wait for a client that is about to connect, or connects again: Dask's own limit, `distributed.comm.timeouts`.
_PATIENCE = 30.0


class DaskExecutor(Executor):
    """Runs calls on a Dask client.

    A future is cancelled if its call or its result is lost with the scheduler. A future of Dask's own executor
    (`distributed.Client.get_executor`) never ends if the scheduler is lost while the result is on its way (distributed
    2026.8): Dask prints the error and leaves the future as it is.

    Parameters
    ----------
    client : distributed.Client
        It is not closed.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on the cluster, also if it was called with the same arguments before."""
        # A worker would end with a call of sys.exit. The key is what Dask's dashboard shows.
        key = f"{getattr(function, '__name__', 'call')}-{uuid.uuid4()}"
        call = self._client.submit(contained, function, *args, key=key, pure=False, **kwargs)
        future: Future[Any] = Future()
        future.add_done_callback(functools.partial(self._withdraw, call))
        self._client.loop.add_callback(self._settle, call, future)
        return future

    def _withdraw(self, call: Any, future: Future[Any]) -> None:
        """Take a call back from the cluster, if its future was cancelled."""
        if future.cancelled():
            self._client.loop.add_callback(self._client.cancel, call, asynchronous=True)

    async def _settle(self, call: Any, future: Future[Any]) -> None:
        """Copy the outcome of a Dask call to a future."""
        result = failure = None
        try:
            result = await self._client.gather(call, asynchronous=True)
        except BaseException as error:  # also when the client is closed meanwhile
            failure = error
            if call.status != "error":  # the call, or its result, was lost with the scheduler
                future.cancel()
        if not future.set_running_or_notify_cancel():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def as_executor(given: Any) -> Executor:
    """Return a `DaskExecutor` for a Dask client and for Dask's executor of one, and any other executor as it is."""
    if hasattr(given, "get_executor"):
        return DaskExecutor(given)
    dask_executor = sys.modules.get("distributed.cfexecutor")
    if dask_executor is not None and isinstance(given, dask_executor.ClientExecutor):
        return DaskExecutor(given._client)  # which has no public name there
    return given  # type: ignore[no-any-return]


def active_client() -> Any:
    """Return the active Dask client, or None without one.

    Raises
    ------
    ExecutorError
        If the client is not connected to its scheduler, and does not become so.
    """
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:  # there is none
        return None
    _wait_for(client)
    return client


def require_scheduler() -> Any:
    """Return what Dask computes with at present, as `dask.base.get_scheduler` does; None for its default.

    Raises
    ------
    ExecutorError
        If that is a client that is not connected to its scheduler, and does not become so.
    """
    from dask.base import get_scheduler

    scheduler = get_scheduler()
    client = getattr(scheduler, "__self__", None)  # a client's scheduler is its method `get`
    if hasattr(client, "get_executor"):
        _wait_for(client)
    return scheduler


def _wait_for(client: Any) -> None:
    """Wait until a client is connected.

    One that lost its scheduler, or never reached it, takes work and gives nothing back, and it remains the active one until
    it is closed. `LocalCluster` leaves such a client behind when it fails to start.
    """
    deadline = time.monotonic() + _PATIENCE
    while client.status != "running":
        if client.status == "closed" or time.monotonic() > deadline:
            raise ExecutorError(
                "the active Dask client has no connection to its scheduler, and Dask would wait for ever: make a new "
                "client, or close this one with distributed.get_client().close() and go on without"
            )
        time.sleep(0.05)
