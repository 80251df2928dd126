"""Calls that another process carries out, and their answers, whatever plugins put into them.

The pool of the standard library takes an argument or an error that cannot be unpickled for the death of a process. Here each
is a `PluginError` of its own call, and the process goes on.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

from mlffstore.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def packed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return a call as bytes for `carry_out`.

    Raises
    ------
    PluginError
        If the function or an argument cannot be pickled.
    """
    try:
        return pickle.dumps((function, args, kwargs))
    except Exception as error:  # a plugin's class may fail in any way
        raise PluginError(
            f"an argument of {_name(function)} cannot be sent to another process ({_text(error)}); use an object that can "
            "be pickled, or one worker"
        ) from error


def carry_out(call: bytes) -> bytes:
    """Carry out a call in this process; return its result for `unpacked`.

    Raises
    ------
    Exception
        What the function raised, if it can be sent back.
    PluginError
        If the call cannot be unpickled here, the error of the function or its result cannot be sent back, or the function
        ended the process with `sys.exit`.
    """
    try:
        function, args, kwargs = pickle.loads(call)
    except Exception as error:
        raise PluginError(
            f"a worker process cannot read what it was sent ({_text(error)}); define functions and classes in a module that "
            "can be imported there, or use one worker"
        ) from error
    try:
        result = contained(function, *args, **kwargs)
    except Exception as error:
        if _can_be_sent(error):
            raise
        raise PluginError(_text(error)) from error
    try:
        return pickle.dumps(result)
    except Exception as error:
        raise PluginError(
            f"the result of {_name(function)} cannot be sent to another process ({_text(error)})"
        ) from error


def unpacked(answer: bytes) -> Any:
    """Return the result of a call.

    Raises
    ------
    PluginError
        If it cannot be unpickled.
    """
    try:
        return pickle.loads(answer)
    except Exception as error:
        raise PluginError(f"the result of a worker process cannot be read ({_text(error)})") from error


def contained(function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Call a function; if it would end this process with `sys.exit`, that is an error like others.

    Raises
    ------
    PluginError
    """
    try:
        return function(*args, **kwargs)
    except SystemExit as error:
        raise PluginError(
            f"{_name(function)}: a plugin called sys.exit({error.code!r}) instead of raising an error"
        ) from error


def _can_be_sent(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # classes of errors with other arguments than their message, and local ones
        return False
    return True


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _name(function: Any) -> str:
    function = getattr(function, "func", function)  # of functools.partial
    return str(getattr(function, "__qualname__", type(function).__qualname__))
