"""Drawing seeds side by side: a draw that needs labels waits, and one call of the teacher serves all that wait."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.data.batch import SampleBatch
from mlffstore_generators.calls import Asking
from mlffstore_generators.further import further_labels
from mlffstore_generators.seeds.base import NoSeedError, Seed, Seeds

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher


@dataclass(frozen=True, slots=True)
class Question:
    """What a draw asks before it goes on.

    Attributes
    ----------
    teacher : Teacher
    atoms : ase.Atoms
        The structure whose labels are needed.
    structure : hashable
        The same object whenever the same structure has moved, so that teachers may follow it.
    """

    teacher: Teacher
    atoms: Atoms
    structure: Hashable


#: A draw: it yields questions, is sent the labels of each, returns a seed, and raises `NoSeedError` if it gives none.
Drawing = Generator[Question, TeacherLabels, Seed]


@runtime_checkable
class AskingSeeds(Protocol):
    """A class of seeds that asks teachers while it draws."""

    def drawing(self, rng: np.random.Generator) -> Drawing:
        """Return the draw of a seed."""
        ...


def drawing(seeds: Seeds, rng: np.random.Generator) -> Drawing:
    """Return the draw of a seed of any class; most ask nothing."""
    if isinstance(seeds, AskingSeeds):
        return (yield from seeds.drawing(rng))
    return seeds.draw(rng)


def draw_alone(draw: Drawing) -> Seed:
    """Return the seed of one draw; raise `NoSeedError` if it gives none."""
    (result,) = _together([draw])
    if isinstance(result, NoSeedError):
        raise result
    return result


def draw_together(seeds: Seeds, rngs: Iterable[np.random.Generator]) -> list[Seed | NoSeedError]:
    """Return a seed, or the reason why there is none, for each stream of random numbers.

    Each is the seed that ``seeds.draw(rng)`` gives, but for rounding, since a teacher labels several structures in one call.
    """
    return _together([drawing(seeds, rng) for rng in rngs])


def _together(draws: Sequence[Drawing]) -> list[Seed | NoSeedError]:
    results: dict[int, Seed | NoSeedError] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(draws)))
    teachers = _Teachers()
    while answers:
        questions: dict[int, Question] = {}
        for k, answer in answers.items():
            try:
                questions[k] = draws[k].send(answer)
            except StopIteration as end:
                results[k] = end.value
            except NoSeedError as error:
                results[k] = error
        answers = teachers.answer(questions)
    return [results[k] for k in range(len(draws))]


class _Teachers:
    """The teachers that some draws ask; each follows its structures from question to question."""

    def __init__(self) -> None:
        self._asking: dict[int, tuple[Teacher, Asking]] = {}
        self._keys: dict[Hashable, int] = {}

    def answer(self, questions: dict[int, Question]) -> dict[int, TeacherLabels]:
        """Return the labels of the structure of each question, with one call of each teacher."""
        answers: dict[int, TeacherLabels] = {}
        groups: dict[int, list[int]] = {}
        for k, question in questions.items():
            groups.setdefault(id(question.teacher), []).append(k)
        for group in groups.values():
            teacher = questions[group[0]].teacher
            _, asking = self._asking.setdefault(id(teacher), (teacher, Asking(teacher)))
            keys = [self._keys.setdefault(questions[k].structure, len(self._keys)) for k in group]
            batch = SampleBatch.from_ase([questions[k].atoms for k in group])
            labels = asking.label(batch, keys)
            answers |= {k: labels_of(labels, batch, row) for row, k in enumerate(group)}
        return answers


def labels_of(labels: TeacherLabels, batch: SampleBatch, sample: int) -> TeacherLabels:
    """Return the labels of one sample of a batch."""
    atoms, row = slice(batch.offsets[sample], batch.offsets[sample + 1]), slice(sample, sample + 1)
    return TeacherLabels(
        labels.energy[row],
        labels.forces[atoms],
        None if labels.stress is None else labels.stress[row],
        labels.ok[row],
        labels.reasons[row],
        further_labels(labels, batch, sample),
    )
