"""A store in S3 over HTTP: moto's server on loopback, behind a proxy that breaks requests."""

from __future__ import annotations

import datetime
import http.client
import uuid

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import CorruptionError, MlffstoreError, ReadOnlyError, StorageError, StoreNotFoundError
from mlffstore.pipeline.run import run
from mlffstore.runtime.processes import IsolatedProcesses
from tests.durability.proxy import Proxy, nth
from tests.pipeline.faults import recipe
from tests.processes import fresh_processes
from tests.samples import metal_frames

pytest.importorskip("obstore")
moto_server = pytest.importorskip("moto.server")
BUCKET = "data"


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    yield host, port
    server.stop()


@pytest.fixture
def proxy(endpoint):
    proxy = Proxy(*endpoint)
    yield proxy
    proxy.close()


def options(port: int, timeout: str = "60s") -> dict:
    """Return storage options; a request that is not answered may take as long as `timeout`, on a busy machine too."""
    return {
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "us-east-1",
        "access_key_id": "testing",
        "secret_access_key": "very-secret",
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": True, "timeout": timeout},
        # Few and quick, so that faults reach our own recovery instead of the client's.
        "retry_config": {"max_retries": 0, "retry_timeout": datetime.timedelta(seconds=1)},
    }


@pytest.fixture
def url():
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/d.zarr"


@pytest.fixture
def store(url, proxy):
    return ml.create(url, storage_options=options(proxy.port))


BATCH = ml.SampleBatch.from_ase(metal_frames(2))


def test_everything_works_as_in_a_folder(store, url, proxy):
    frames = metal_frames(6)
    assert store.append(frames[:3], key="a") == 1
    assert store.append(frames[3:]) == 2
    assert store.append(frames[:3], key="a") == 1
    snap = ml.open(url, storage_options=options(proxy.port)).snapshot()
    assert np.array_equal(
        snap.read([5, 0]).energy, [frames[5].calc.results["energy"], frames[0].calc.results["energy"]]
    )
    store.tag("v1")
    before = snap.read().content_hash
    done = store.compact()
    assert (done.n_before, done.n_after) == (2, 1)
    assert np.array_equal(store.snapshot().read().content_hash, before)
    assert np.array_equal(store.snapshot(tag="v1").read().content_hash, before)
    assert store.verify(full=True).ok
    assert ml.verify(url, full=True, storage_options=options(proxy.port)).ok
    assert store.gc(grace=0).paths == ()
    assert len(store.history()) == 5


def test_secrets_are_not_shown(store, caplog):
    import pickle

    assert "secret" not in repr(store) + repr(store.snapshot()) + repr(store._opener) + store.url
    assert len(pickle.loads(pickle.dumps(store.snapshot()))) == 0
    assert "secret" not in caplog.text


def test_garbage_is_collected(store, proxy):
    store.append(BATCH)
    path = f"segments/{'0' * 32}.zarr.zip"
    store._storage.write(path, [b"PK", b"abc"])
    assert store.gc().n_young == 1
    removed = store.gc(grace=0, dry_run=False)
    assert (removed.paths, removed.n_files, removed.nbytes) == ((path,), 1, 5)
    assert store.verify(full=True).ok


@pytest.mark.parametrize("what", ["500 before", "500 after", "409 before", "drop after", "slow"])
def test_a_claim_meets_a_fault(what, store, url, proxy):
    """Whatever happens to the PUT of the log entry, the commit is made exactly once."""
    proxy.fault = nth(0, what, lambda method, path: method == "PUT" and "/_log/" in path)
    assert store.append(BATCH, key="a") == 1
    assert store.append(BATCH, key="a") == 1
    assert any(fault == what for _, _, fault in proxy.requests)
    assert len(ml.open(url, storage_options=options(proxy.port))) == 2
    assert store.verify(full=True).ok


def test_a_claim_is_not_answered(store, url, proxy):
    hasty = ml.open(url, "a", storage_options=options(proxy.port, "5s"))
    proxy.fault = nth(0, "hang after", lambda method, path: method == "PUT" and "/_log/" in path)
    assert hasty.append(BATCH, key="a") == 1
    assert any(fault == "hang after" for _, _, fault in proxy.requests)
    assert store.append(BATCH, key="a") == 1
    assert len(store) == 2
    assert store.verify(full=True).ok


def test_every_request_of_an_append_may_fail(store, url, proxy):
    """The n-th request fails before or after it took effect, for every n; then the same writer goes on."""
    store.append(BATCH)
    proxy.requests.clear()
    store.append(BATCH)
    n_requests = len(proxy.requests)
    assert n_requests >= 4
    refused = 0
    for n in range(n_requests):
        what = ("500 before", "500 after", "drop after")[n % 3]
        before = len(store)
        proxy.fault = nth(n, what, lambda method, path: True)
        try:
            store.append(BATCH, key=f"{n}")
        except MlffstoreError:
            refused += 1
        proxy.fault = lambda method, path, headers: ""
        store.append(BATCH, key=f"{n}")
        assert len(store) == before + 2
    assert refused >= n_requests // 2
    energies = ml.open(url, storage_options=options(proxy.port)).snapshot().read(columns=["energy"]).energy
    assert np.array_equal(energies, np.tile(BATCH.energy, len(energies) // 2))
    assert store.verify(full=True).ok


def test_a_commit_is_four_requests(store, proxy):
    """Segment, look at the last entry and beyond the next one, claim: no listing, and nothing is read twice."""
    store.append(BATCH)
    proxy.requests.clear()
    store.append(BATCH, key="a")
    methods = [method for method, _, _ in proxy.requests]
    assert (methods[0], sorted(methods[1:3]), methods[3:]) == ("PUT", ["GET", "HEAD"], ["PUT"])


def test_when_nothing_answers_the_error_says_what_to_do(store, proxy):
    proxy.fault = lambda method, path, headers: "500 before" if "/_log/" in path else ""
    with pytest.raises(StorageError, match=r"Try again|append with the same key"):
        store.append(BATCH, key="a")
    proxy.fault = lambda method, path, headers: ""
    assert store.append(BATCH, key="a") == 1


def test_a_store_that_ignores_conditions_is_refused(url, proxy):
    proxy.fault = lambda method, path, headers: "unconditional"
    with pytest.raises(StorageError, match="ignores conditional writes"):
        ml.create(url, storage_options=options(proxy.port))
    store = ml.create(url, storage_options=options(proxy.port), single_writer=True)
    store.append(BATCH)
    with pytest.raises(StorageError, match="single_writer=True"):
        ml.open(url, "a", storage_options=options(proxy.port))
    assert len(ml.open(url, storage_options=options(proxy.port))) == 2  # reading is fine


def test_damage_is_found(store):
    store.append(BATCH)
    segment = store.snapshot().segments[0]
    path = segment.path
    store._storage.replace(path, store._storage.read(path)[:-1])
    assert [problem.path for problem in store.verify().problems] == [path]
    with pytest.raises(CorruptionError, match="truncated"):
        store.snapshot().read()


def test_absent_things_and_refusals(url, proxy):
    with pytest.raises(StoreNotFoundError, match="there is no mlffstore store"):
        ml.open(url, storage_options=options(proxy.port))
    with pytest.raises(StorageError, match="there is no such bucket; make it first"):
        ml.create("s3://nobucket/d.zarr", storage_options=options(proxy.port))
    with pytest.raises(StorageError, match="storage_options"):
        ml.open("/some/folder", storage_options={"region": "x"})
    proxy.fault = lambda method, path, headers: "403 before"
    with pytest.raises(ReadOnlyError, match="check the credentials"):
        ml.create(url, storage_options=options(proxy.port))


def append_some(url: str, port: int, who: int, n: int) -> None:
    store = ml.open(url, "a", storage_options=options(port))
    for i in range(n):
        store.append(BATCH, key=f"{who}/{i}")


def test_three_processes_append_at_once(store, url, endpoint):
    """Straight to the server: the proxy is one thread for each connection, moto answers one after another anyway."""
    context = fresh_processes()
    workers = [context.Process(target=append_some, args=(url, endpoint[1], who, 2)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert sorted(store.keys()) == sorted(f"{who}/{i}" for who in range(3) for i in range(2))
    assert sorted(store.keys().values()) == list(range(1, 7))
    assert len(store) == 12
    assert store.verify(full=True).ok


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_other_urls(scheme, tmp_path):
    url = f"memory://{uuid.uuid4().hex}" if scheme == "memory" else f"file://{tmp_path}/d.zarr"
    store = ml.create(url)
    store.append(BATCH)
    store.append(BATCH)
    store.compact()
    assert store.verify(full=True).ok
    assert len(ml.open(url)) == 4


def test_a_run_whose_credentials_expire(url, proxy, tmp_path, monkeypatch):
    """The run ends after some tasks: their samples would all be computed, and none of them stored."""
    for name, value in {"ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}", "REGION": "us-east-1", "ALLOW_HTTP": "true",
                        "ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "very-secret"}.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    parsed = recipe(tmp_path, 0.0, samples=100).model_copy(update={"store": url})
    commits = []

    def expire(method: str, path: str, headers: dict[str, str]) -> str:
        if method == "PUT" and "/_log/" in path:
            commits.append(path)
        return "expired" if method == "PUT" and len(commits) > 4 else ""

    proxy.fault = expire
    with IsolatedProcesses(1) as executor:
        report = run(parsed, executor=executor)
        assert "the store refused the samples of one task after another" in report.stopped
        assert "refused access" in report.stopped
        assert "check the credentials" in report.stopped
        assert len(report.failed) <= 10
        proxy.fault = lambda method, path, headers: ""
        assert 0 < report.accepted == len(ml.open(url)) < 10
        assert not run(parsed, executor=executor).stopped
    assert len(ml.open(url)) == 100
