"""Calling a batched model: samples in groups of bounded size, and a group that fails halved until the culprit is alone."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from mlffstore_teachers.collect import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What one call of a model says of a group: for each sample "energy", "forces" and, where it has one, "stress".
Predict = "Callable[[Sequence[int]], list[dict[str, Any]]]"


def groups(indices: Sequence[int], n_atoms: Any, budget: int, *, most: int | None = None) -> list[list[int]]:
    """Cut samples into groups of at most `budget` atoms and `most` samples, similar sizes together, the largest first.

    A sample larger than the budget is a group by itself.
    """
    groups: list[list[int]] = []
    used = budget
    for i in sorted(indices, key=lambda i: -int(n_atoms[i])):
        if not groups or used + int(n_atoms[i]) > budget or (most is not None and len(groups[-1]) >= most):
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += int(n_atoms[i])
    return groups


def balanced_groups(indices: Sequence[int], n_atoms: Any, budget: int, *, most: int) -> list[list[int]]:
    """Cut samples into groups of at most `budget` atoms and `most` samples that are alike: each large and small samples.

    For models that pad every group to one size: groups of similar sizes would all be padded to that of the largest samples,
    which have the most neighbours. A sample larger than the budget is a group by itself.
    """
    order = sorted(indices, key=lambda i: (-int(n_atoms[i]), i))
    small = [i for i in order if int(n_atoms[i]) <= budget]
    groups = [[i] for i in order if int(n_atoms[i]) > budget]
    count = -(-sum(int(n_atoms[i]) for i in small) // budget)
    open_groups: list[tuple[int, int, list[int]]] = [(0, k, []) for k in range(max(count, -(-len(small) // most)))]
    for i in small:  # each to the group with the fewest atoms
        atoms, k, group = heapq.heappop(open_groups)
        if atoms + int(n_atoms[i]) > budget or len(group) == most:
            groups.append(group)
            atoms, group = 0, []
        group.append(i)
        heapq.heappush(open_groups, (atoms + int(n_atoms[i]), k, group))
    return groups + [group for _, _, group in sorted(open_groups) if group]


def predict(
    name: str,
    group: Sequence[int],
    call: Callable[[Sequence[int]], list[dict[str, Any]]],
    results: list[dict[str, Any] | None],
    reasons: list[str],
    on_memory: Callable[[], None] | None = None,
) -> None:
    """Label a group in one call; if that fails, halve it until the culprit is alone and gets the reason.

    Parameters
    ----------
    name : str
        The teacher's name.
    group : sequence of int
    call : callable
        It takes a group and returns the model's output for each sample.
    results, reasons : list
        Lists with one entry per sample, which are filled in here.
    on_memory : callable, optional
        It is called when a group of several samples did not fit into memory, so that later groups can be smaller.
    """
    try:
        predictions = call(group)
    except Exception as error:  # a model may raise anything; the reason is kept
        if len(group) == 1:
            reasons[group[0]] = failure(name, error)
            return
        if on_memory is not None and out_of_memory(error):
            on_memory()
        half = len(group) // 2
        predict(name, group[:half], call, results, reasons, on_memory)
        predict(name, group[half:], call, results, reasons, on_memory)
        return
    for i, prediction in zip(group, predictions, strict=True):
        results[i] = prediction


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of torch or jax says that the device is full."""
    return isinstance(error, MemoryError) or any(
        text in f"{type(error).__name__}: {error}" for text in ("OutOfMemory", "out of memory", "RESOURCE_EXHAUSTED")
    )
