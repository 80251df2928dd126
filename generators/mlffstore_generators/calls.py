"""Counting how often teachers are asked while structures are made: the cost of a sample."""

from __future__ import annotations

import contextlib
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mlffstore.contracts.protocols import FollowingTeacher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlffstore.contracts.protocols import Follower, Teacher, TeacherLabels
    from mlffstore.data.batch import SampleBatch

_calls: ContextVar[Counter[str] | None] = ContextVar("mlffstore_teacher_calls", default=None)


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Yield a counter of the structures that each teacher labels within the block, by its name."""
    calls: Counter[str] = Counter()
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def ask(teacher: Teacher, batch: SampleBatch) -> TeacherLabels:
    """Return the teacher's labels of a batch, and count them."""
    _count(teacher, len(batch))
    return teacher.label(batch)


class Asking:
    """A follower of any teacher that counts what it is asked: a teacher that cannot follow labels every call anew."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._follower: Follower | None = teacher.following() if isinstance(teacher, FollowingTeacher) else None

    def label(self, batch: SampleBatch, keys: Sequence[int]) -> TeacherLabels:
        """Return labels; `keys` says which structure each sample is."""
        _count(self._teacher, len(batch))
        return self._teacher.label(batch) if self._follower is None else self._follower.label(batch, keys)


def _count(teacher: Teacher, n: int) -> None:
    calls = _calls.get()
    if calls is not None and n:
        calls[teacher.info.name] += n
