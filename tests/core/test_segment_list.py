"""The list of segments of a state: it is a list, and finding a segment after many replacements is not quadratic."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from mlffstore.format.segment_list import SegmentList


@dataclass(frozen=True)
class Stub:
    """What the list needs of a segment."""

    path: str
    n_samples: int = 1
    n_atoms: int = 2


class Counted(str):
    """A path that counts how often it is compared or hashed."""

    n = 0

    def __eq__(self, other):
        Counted.n += 1
        return str.__eq__(self, other)

    def __hash__(self):
        Counted.n += 1
        return str.__hash__(self)


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_list(seed):
    rng = random.Random(seed)
    ours, plain, number = SegmentList(), [], 0
    for _ in range(600):
        n_new = rng.randint(0, 3)
        new = [Stub(f"{number + i}") for i in range(n_new)]
        number += n_new
        if rng.random() < 0.4 or len(plain) < 5:
            for segment in new:
                ours.append(segment)
            plain += new
        else:
            start = rng.randrange(len(plain))
            stop = min(len(plain), start + rng.randint(1, 4))
            assert ours.find(plain[start].path) == start
            ours.splice(start, stop, new)
            plain[start:stop] = new
        assert list(ours) == plain
        for segment in rng.sample(plain, min(3, len(plain))):
            assert ours.find(segment.path) == plain.index(segment)
        assert ours.find(f"{number + 1}") is None


@pytest.mark.parametrize(("n_old", "n_new"), [(2, 1), (1, 2), (1, 0), (3, 5)])
def test_replacements_are_not_quadratic(n_old, n_new):
    n = 6000
    segments = SegmentList()
    for i in range(n):
        segments.append(Stub(Counted(f"old {i}")))
    Counted.n = 0
    for i in range(0, n - n_old, n_old):
        place = segments.find(Counted(f"old {i}"))
        assert place == i // n_old * n_new
        segments.splice(place, place + n_old, [Stub(Counted(f"new {i} {k}")) for k in range(n_new)])
    assert Counted.n < 300 * n, "more than places noted anew now and then, and short searches"
