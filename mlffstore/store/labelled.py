"""`LabelledStore`: a store whose samples get labels after they were stored, from a teacher or from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.store.arguments import json_mapping
from mlffstore.store.correctable import CorrectableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    import numpy.typing as npt
    from distributed import Client

    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.batch import SampleBatch
    from mlffstore.store.chosen import SampleSelection
    from mlffstore.store.labelling import LabelReport
    from mlffstore.store.snapshot import Snapshot

    Progress = Callable[[int, int], None]


class LabelledStore(CorrectableStore):
    """A store with the operations that add labels to samples that are stored already."""

    def attach_labels(
        self,
        samples: npt.ArrayLike,
        batch: SampleBatch,
        *,
        snapshot: Snapshot | None = None,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Attach labels that were made elsewhere to samples that are stored already, in one atomic, durable commit.

        Parameters
        ----------
        samples : array_like of int, shape (T,)
            Different samples of the snapshot, by index; negative ones are counted from the end.
        batch : SampleBatch
            T samples with as many atoms each, in the order of `samples` and with the atoms in the stored order. Only their
            labels count.
        snapshot : Snapshot, optional
            The snapshot that the indices refer to; the newest by default.
        teachers, provenance : mapping, optional
            As for `append`.

        Returns
        -------
        int or None
            The version of the commit, None if there was nothing to commit.

        Raises
        ------
        DataError
            If the labels may not be stored, or `samples` and the batch do not fit the snapshot.
        ConflictError
            If one of the samples has other values of these labels: nothing is overwritten.
        """
        from mlffstore.store.attaching import attach_labels

        self.check_writable()
        notes = json_mapping("provenance", provenance or {})
        info = {name: json_mapping("teachers", one) for name, one in (teachers or {}).items() if name in batch.labels}
        return attach_labels(
            self._storage, self._log, self.snapshot() if snapshot is None else snapshot, samples, batch, teachers=info,
            provenance=notes,
        )  # fmt: skip

    def add_labels(
        self,
        teacher: Teacher | str,
        *,
        properties: Sequence[str] | None = None,
        samples: npt.ArrayLike | SampleSelection | None = None,
        retry: bool = False,
        options: Mapping[str, Any] | None = None,
        workers: int = 1,
        executor: Executor | Client | None = None,
        chunk_samples: int = 512,
        progress: Progress | None = None,
    ) -> LabelReport:
        """Label every sample that lacks the labels of a teacher.

        Parameters
        ----------
        teacher : Teacher or str
            A teacher, or the name of a teacher for `mlffstore.get_teacher`.
        properties : sequence of str, optional
            What to store of what the teacher gives, such as ``("energy", "forces", "charges")``; all of it by default. A
            sample that has some of it gets what it lacks. By default a sample that has an energy of the teacher is done.
        samples : array_like of int, boolean mask, or selection, optional
            Only these samples of the latest version, or of the selection's, are labelled; all by default. The segments that
            hold some of them are written anew with the labels.
        retry : bool, optional
            Whether samples that the teacher refused before are given to it again, such as after a failure that had nothing
            to do with them: no GPU, no licence. By default they are left alone.
        options : mapping, optional
            Options of a teacher that is given by name, such as ``{"weights": "orb.ckpt"}``.
        workers : int, optional
            Number of processes on this machine. With 1 the teacher works in this process, which is right for a GPU.
        executor : concurrent.futures.Executor, or distributed.Client, optional
            What labels instead; it is not shut down. The default is the active Dask client, if there is one.
        chunk_samples : int, optional
            Number of samples that the teacher gets at a time.
        progress : callable, optional
            It is called with the number of samples done so far and the number of all samples.

        Returns
        -------
        LabelReport

        Raises
        ------
        ConflictError
            If the store holds labels of another model under this teacher's name.
        DataError
            If the teacher gives labels that do not fit the samples, or may not be stored.
        TeacherError
            If the teacher labels samples without a property that it declares.
        ExecutorError
            If a worker process died, or the active Dask client has no connection to its scheduler.

        Notes
        -----
        The labels of a segment are one commit, a layer over it: a pass that was killed continues with the next segment when
        it is called again. Several processes may label the same store at once. What another process has finished is not
        done again; if two processes label one segment at the same time, the first commit counts. Labels that are there are
        never changed. Samples that the teacher refuses, or that it gives no finite energy or forces, stay without labels,
        and the provenance of the commit counts the reasons.
        """
        from mlffstore.store.labelling import add_labels

        self.check_writable()
        return add_labels(
            self._storage, self._log, self.snapshot, teacher, properties=properties, samples=samples, retry=retry,
            options=options or {}, workers=workers, executor=executor, chunk_samples=chunk_samples, progress=progress,
        )  # fmt: skip
