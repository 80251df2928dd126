"""Wrong options for an object store: one error of ours, which says where the option is and never what it is."""

from __future__ import annotations

import traceback

import pytest

import mlffstore as ml
from mlffstore.errors import StorageError

pytest.importorskip("obstore")
SECRET = "5ecret-value"
#: Nothing listens at the endpoint.
GOOD = {
    "region": "us-east-1",
    "endpoint": "http://127.0.0.1:9",
    "access_key_id": "name",
    "secret_access_key": "word",
    "client_options": {"allow_http": True, "timeout": "1s"},
    "retry_config": {"max_retries": 0},
}


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"timeout": SECRET}, "storage_options['timeout']"),
        ({"region": "eu-west-1", "access_key": SECRET}, "storage_options['access_key']"),
        ({"region": 7}, "storage_options['region']"),
        ({"virtual_hosted_style_request": SECRET}, "storage_options['virtual_hosted_style_request']"),
        ({"client_options": SECRET}, "storage_options['client_options']"),
        ({"client_options": {"timeout": SECRET}}, "storage_options['client_options']['timeout']"),
        ({"client_options": {"allow_http": True, "retries": SECRET}}, "storage_options['client_options']['retries']"),
        ({"retry_config": {"max_retries": SECRET}}, "storage_options['retry_config']['max_retries']"),
        ({"bucket": SECRET}, "storage_options['bucket']"),
        ({"url": SECRET}, "storage_options['url']"),
    ],
)
@pytest.mark.parametrize("call", [ml.open, ml.create])
def test_an_option_that_the_client_refuses(call, options, place):
    with pytest.raises(StorageError, match="client_options") as caught:
        call("s3://bucket/d.zarr", storage_options=options)
    assert f"refused {place}. Expected" in str(caught.value)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("url", ["s3://", "az://container/d.zarr"])
def test_a_url_that_the_client_refuses(url):
    with pytest.raises(StorageError, match=r"refused the URL or its options \("):
        ml.open(url, storage_options={"client_options": {"timeout": "5s"}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": f"{SECRET}, no URL"},
        {"endpoint": f"http://user:{SECRET}@127.0.0.1:9"},
        {"region": f"{SECRET}\n"},
        {"access_key_id": f"{SECRET}\n"},
    ],
)
@pytest.mark.parametrize("call", [ml.open, ml.create])
def test_an_option_that_no_request_can_be_made_of(call, wrong):
    with pytest.raises(StorageError) as caught:
        call("s3://bucket/d.zarr", storage_options=GOOD | wrong)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("name", ["run#1", "q?1.zarr", "50%25"])
def test_names_that_would_be_another_place_are_refused(name):
    """A client that parses the URL reads run#1 and run#2 as one place."""
    for call in (ml.create, ml.open):
        with pytest.raises(StorageError, match="expected a URL without"):
            call(f"s3://data/{name}", storage_options={"region": "us-east-1"})
