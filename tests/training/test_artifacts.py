"""Holds that an artifact comes back as it was stored, from a directory and from an S3-compatible server alike."""

import os
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.fakes.serve import free_port
from training.artifacts import UnableToFetch, drop_artifact, fetch_artifact, put_artifact, stored_artifacts
from training.lora.artifact import Manifest, write_manifest

KEY = "tenant/routing-v1-head-0123"


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "neighbours.json").write_text('["a","b"]')
    facts = {"base_model": "", "licence": "", "dataset_hash": "d", "policy": "internal_only", "spec_hash": "s"}
    write_manifest(folder, Manifest(adapter="routing-v1-head-0123", rung="head", kind="label", **facts))
    return folder


@pytest.fixture
def cache(tmp_path, settings):
    settings.ARTIFACTS_CACHE = tmp_path / "cache"
    return settings.ARTIFACTS_CACHE


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path, settings, monkeypatch):
    if request.param == "directory":
        settings.ARTIFACTS_URL = (tmp_path / "store").as_uri()
        yield
        return
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # it remembers the last test's server
    settings.ARTIFACTS_URL = f"s3://artifacts-{os.getpid()}"
    yield
    server.stop()


def test_an_artifact_comes_back_whole_and_only_under_its_checksum(artifact, store, cache):
    checksum = put_artifact(artifact, key=KEY)
    local = fetch_artifact(key=KEY, checksum=checksum)
    assert (local / "neighbours.json").read_text() == '["a","b"]'
    assert local.is_relative_to(cache)
    with pytest.raises(UnableToFetch):
        fetch_artifact(key=KEY, checksum="0" * 64)
    assert fetch_artifact(key=KEY, checksum=checksum) == local


def test_a_tampered_artifact_is_refused(artifact, store, cache):
    checksum = put_artifact(artifact, key=KEY)
    (fetch_artifact(key=KEY, checksum=checksum) / "neighbours.json").write_text("[]")
    with pytest.raises(UnableToFetch):
        fetch_artifact(key=KEY, checksum=checksum)
    assert fetch_artifact(key=KEY, checksum=checksum)  # the cache is filled anew from the store


def test_a_dropped_artifact_is_gone_and_dropping_it_again_is_no_error(artifact, store, cache):
    checksum = put_artifact(artifact, key=KEY)
    drop_artifact(key=KEY)
    drop_artifact(key=KEY)
    with pytest.raises(UnableToFetch):
        fetch_artifact(key=KEY, checksum=checksum)


def test_the_store_says_what_it_holds_of_one_tenant_and_nothing_of_another(artifact, store, cache):
    ours, theirs = uuid4(), uuid4()
    assert stored_artifacts(ours) == []
    put_artifact(artifact, key=f"{ours}/a-1")
    put_artifact(artifact, key=f"{theirs}/b-1")
    assert stored_artifacts(ours) == [f"{ours}/a-1"]
    put_artifact(artifact, key=f"{ours}/a-2")
    assert sorted(stored_artifacts(ours)) == [f"{ours}/a-1", f"{ours}/a-2"]
