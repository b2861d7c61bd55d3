"""Where adapters are kept: a directory by default, any S3-compatible store by URL; always checked before use."""

import shutil
from pathlib import Path
from uuid import UUID, uuid4

import fsspec
from botocore.exceptions import BotoCoreError
from django.conf import settings

from training.lora.artifact import MANIFEST, UnableToReadArtifact, digest_file, read_manifest

STORE_FAULTS = (OSError, BotoCoreError)  # s3fs lets botocore's own through where no answer came


class UnableToStore(Exception):
    """The store is away, full, or refuses."""


class UnableToFetch(Exception):
    """The artifact is not in the store, or is not what its checksum says."""


def put_artifact(directory: Path, *, key: str) -> str:
    """Store a finished artifact directory under `key`; gives its checksum (of the manifest, which hashes the rest).

    Raises UnableToStore.
    """
    read_manifest(directory)
    try:
        filesystem, root = _store()
        target = f"{root}/{key}"
        filesystem.makedirs(target, exist_ok=True)
        # The manifest goes last: a store that has it has the rest.
        for path in sorted(directory.iterdir(), key=lambda path: path.name == MANIFEST):
            if path.is_file():
                filesystem.put_file(str(path), f"{target}/{path.name}")
    except STORE_FAULTS as error:
        raise UnableToStore("the store did not take the artifact") from error
    return digest_file(directory / MANIFEST)


def fetch_artifact(*, key: str, checksum: str) -> Path:
    """A local, verified copy of an artifact, in the cache that replicas read. Raises UnableToFetch."""
    cache = Path(settings.ARTIFACTS_CACHE)
    local = cache / key
    if not (local / MANIFEST).is_file():
        _download(key, local)
    try:
        read_manifest(local)
    except UnableToReadArtifact as error:
        shutil.rmtree(local, ignore_errors=True)
        raise UnableToFetch(str(error)) from error
    if digest_file(local / MANIFEST) != checksum:
        shutil.rmtree(local, ignore_errors=True)
        raise UnableToFetch("the artifact is not the one that was trained")
    return local


def stored_artifacts(tenant_id: UUID) -> list[str]:
    """The keys of everything that a tenant has in the store, finished or not. Raises UnableToStore."""
    try:
        filesystem, root = _store()
        filesystem.invalidate_cache()
        folder = f"{root}/{tenant_id}"
        found = filesystem.ls(folder, detail=False) if filesystem.exists(folder) else []
    except STORE_FAULTS as error:
        raise UnableToStore("the store does not say what it holds") from error
    return [f"{tenant_id}/{Path(path).name}" for path in found]


def drop_artifact(*, key: str) -> None:
    """Remove an artifact from the store and the cache; nothing happens where it is gone already.

    Raises UnableToStore.
    """
    try:
        filesystem, root = _store()
        if filesystem.exists(f"{root}/{key}"):
            filesystem.rm(f"{root}/{key}", recursive=True)
    except STORE_FAULTS as error:
        raise UnableToStore("the store did not let go of the artifact") from error
    shutil.rmtree(Path(settings.ARTIFACTS_CACHE) / key, ignore_errors=True)


def _download(key: str, local: Path) -> None:
    unfinished = local.with_name(f"{local.name}.{uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        filesystem, root = _store()
        for path in filesystem.ls(f"{root}/{key}", detail=False):
            filesystem.get_file(path, str(unfinished / Path(path).name))
        unfinished.rename(local)
    except STORE_FAULTS as error:
        if not (local / MANIFEST).is_file():  # otherwise another process was first, which is as good
            raise UnableToFetch("the artifact is not in the store") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _store() -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, root = fsspec.core.url_to_fs(settings.ARTIFACTS_URL)
    return filesystem, str(root).rstrip("/")
