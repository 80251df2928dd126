"""Strings that later steps cannot keep are refused at the door: NUL, and the lone surrogates of names that are not UTF-8."""

from __future__ import annotations

import os

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError, FormatError
from mlffstore.format.records import parse_segment, segment_document
from tests.samples import metal_frames

BAD = {"NUL": "a\0b", "not UTF-8": os.fsdecode(b"caf\xe9.xyz")}


@pytest.fixture(params=BAD.values(), ids=BAD)
def bad(request):
    return request.param


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2))
    return store


@pytest.mark.parametrize("form", ["one for all", "one per sample", "codes"])
@pytest.mark.parametrize("column", ["source", "sampler"])
def test_sources_and_samplers(bad, form, column):
    value = {"one for all": bad, "one per sample": ["good", bad], "codes": (np.array([0, 1]), ("good", bad))}[form]
    with pytest.raises(DataError, match=f"{column}: expected text that is UTF-8 and has no NUL, got "):
        ml.SampleBatch(n_atoms=[1, 1], numbers=[2, 2], positions=np.zeros((2, 3)), **{column: value})


@pytest.mark.parametrize("axis", ["sample", "atom"])
def test_columns_of_strings(bad, axis, store):
    words = np.array(["good", bad], object)
    with pytest.raises(DataError, match="kind'?: expected text that is UTF-8 and has no NUL"):
        ml.SampleBatch(n_atoms=[1, 1], numbers=[2, 2], positions=np.zeros((2, 3)), extra={"kind": (words, "1", axis)})
    with pytest.raises(DataError, match="kind'?: expected text that is UTF-8 and has no NUL"):
        store.add_column("kind", [bad] * len(store))
    with pytest.raises(DataError, match="kind'?: expected text that is UTF-8"):
        store.add_column("kind", np.array([b"caf\xe9"] * len(store)))
    assert store.version == 1


def test_reasons_keys_tags_and_provenance(bad, store):
    with pytest.raises(DataError, match="reason: expected a text"):
        store.remove([0], reason=bad)
    with pytest.raises(DataError, match="key: "):
        store.append(metal_frames(1, seed=3), key=bad)
    with pytest.raises(DataError, match="tag: "):
        store.tag(bad)
    if bad == BAD["not UTF-8"]:
        with pytest.raises(DataError, match="provenance: expected what JSON can hold"):
            store.append(metal_frames(1, seed=3), provenance={"file": bad})
    assert store.version == 1


def test_reasons_of_rejected_samples_keep_such_characters_as_escapes(bad, store):
    batch = ml.SampleBatch.from_ase(metal_frames(1, seed=5))
    store.commit(None, rejected=batch, reasons=[f"{bad}: hot"])
    (reason,) = ml.open(store.url).snapshot().quarantine.reasons()
    assert reason.endswith(": hot")
    assert "\\" in reason
    reason.encode()


def test_a_foreign_log_with_such_strings_is_refused(bad, store):
    document = segment_document(store.snapshot().segments[0])
    document["vocabulary"]["source"] = [bad]
    with pytest.raises(FormatError, match="expected text without NUL"):
        parse_segment(document, "entry")


def test_a_file_whose_name_is_not_utf8_can_be_imported(tmp_path):
    from ase.io import write

    path = tmp_path / BAD["not UTF-8"]
    write(tmp_path / "good.extxyz", metal_frames(2))
    (tmp_path / "good.extxyz").rename(path.with_suffix(".extxyz"))
    ml.import_files(path.with_suffix(".extxyz"), tmp_path / "d.zarr", teacher="emt")
    (source,) = set(ml.open(tmp_path / "d.zarr").snapshot().read().source)
    assert source == r"caf\udce9.extxyz"
