"""Calls in worker processes whose arguments, errors or results do not survive the way there or back."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from mlffstore.errors import PluginError
from mlffstore.runtime.processes import IsolatedProcesses, Workers, local_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor


class NeedsTwo(Exception):
    """An error that cannot be made again from its message, as many packages have."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"code {code}: {text}")


def needs_two(code: int) -> None:
    raise NeedsTwo(code, "no convergence")


def local() -> None:
    class Local(Exception):
        """An error of a class that has no name to be found by."""

    raise Local("deep inside")


def leaves(code: int) -> None:
    sys.exit(code)


def unsendable() -> Any:
    return lambda: 1


class Breaks:
    """An object that ends in an error where it arrives."""

    def __reduce__(self) -> Any:
        return _break, ()


def _break() -> None:
    raise LookupError("not there")


def takes(value: object) -> object:
    return value


def gives_broken() -> Breaks:
    return Breaks()


@pytest.fixture(scope="module")
def isolated() -> Iterator[Executor]:
    """Return a pool of one process."""
    with local_pool(1) as pool:
        assert isinstance(pool, IsolatedProcesses)
        yield pool


@pytest.fixture(scope="module")
def kept() -> Iterator[Workers]:
    """Return a kept process."""
    workers = Workers(1)
    yield workers
    workers.restart()


@pytest.fixture(params=["isolated", "kept"])
def pool(request: pytest.FixtureRequest) -> Any:
    """Return a pool, and check that its process never died."""
    pool = request.getfixturevalue(request.param)
    import os

    before = pool.submit(os.getpid).result()
    yield pool
    assert pool.submit(os.getpid).result() == before


def of_a_module_that_only_this_process_has() -> Any:
    module = types.ModuleType("only_here")
    exec("class Thing:\n    pass", module.__dict__)
    sys.modules["only_here"] = module
    return module.Thing()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: (needs_two, 7), r"NeedsTwo: code 7: no convergence", id="error-that-cannot-be-made-again"),
        pytest.param(lambda: (local,), r"Local: deep inside", id="error-of-a-local-class"),
        pytest.param(lambda: (leaves, 0), r"sys\.exit\(0\)", id="exit"),
        pytest.param(lambda: (unsendable,), r"result", id="result-that-cannot-be-sent"),
        pytest.param(lambda: (gives_broken,), r"LookupError: not there", id="result-that-breaks"),
        pytest.param(lambda: (takes, Breaks()), r"LookupError: not there", id="argument-that-breaks"),
        pytest.param(lambda: (takes, lambda: 1), r"argument", id="argument-that-cannot-be-sent"),
        pytest.param(
            lambda: (takes, of_a_module_that_only_this_process_has()),
            r"ModuleNotFoundError: .*only_here",
            id="argument-of-an-unknown-module",
        ),
    ],
)  # fmt: skip
def test_what_cannot_travel_is_an_error_of_its_call_alone(pool, call, message):
    function, *arguments = call()
    with pytest.raises(PluginError, match=message):
        pool.submit(function, *arguments).result(timeout=300)


def test_other_errors_come_as_they_are(pool):
    with pytest.raises(ZeroDivisionError) as caught:
        pool.submit(divmod, 1, 0).result(timeout=300)
    assert "zero" in str(caught.value)
