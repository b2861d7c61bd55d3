"""What a caller of the encoder relies on, asked through its door."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from serving.encoder.app import MAX_BODY, MAX_QUERY, EncoderApp
from tests.training.lora.tiny import write_base, write_encoder, write_rows
from training.lora.artifact import Manifest, write_manifest
from training.lora.embed import Embedder
from training.lora.spec import RunSpec
from training.lora.train import train

Client = httpx.AsyncClient
ASK = {"adapter": "parcels-v1", "query": "where is my parcel 0"}


async def test_a_head_says_its_labels_neighbours_and_novelty(client: Client, head: Path) -> None:
    assert (await load(client, head)).status_code == 200
    said = (await client.post("/v1/decide", json=ASK)).json()
    assert {label for label, _ in said["labels"]} == {"billing", "shipping"}
    chances = [chance for _, chance in said["labels"]]
    assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1.0)
    assert 0 <= said["entropy"] <= np.log(2) + 1e-9
    assert said["neighbours"][0] == ["shipping", pytest.approx(1.0, abs=1e-3)]
    assert len(said["neighbours"]) == 5 and said["similarity"] == pytest.approx(said["neighbours"][-1][1])
    assert 0 < said["novelty"] <= 1


async def test_a_lora_has_no_labels_and_compares_the_neighbours_with_the_answer(client: Client, lora: Path) -> None:
    assert (await load(client, lora, name="parcels-v2")).status_code == 200
    ask = ASK | {"adapter": "parcels-v2"}
    assert (await client.post("/v1/decide", json=ask)).json()["labels"] == []
    agreeing = (await client.post("/v1/decide", json=ask | {"answer": "shipping"})).json()
    share = sum(answer == "shipping" for answer, _ in agreeing["neighbours"]) / 5
    assert agreeing["neighbour_agreement"] == share


async def test_queries_embedded_together_get_what_they_get_alone(client: Client, head: Path) -> None:
    await load(client, head)
    asks = [ASK | {"query": "box " * number} for number in range(1, 40)]
    alone = [(await client.post("/v1/decide", json=ask)).json() for ask in asks]
    together = await asyncio.gather(*(client.post("/v1/decide", json=ask) for ask in asks))
    for one, other in zip(alone, together, strict=True):
        assert other.json()["similarity"] == pytest.approx(one["similarity"], abs=1e-5)
        assert other.json()["novelty"] == one["novelty"]


async def test_an_unloaded_adapter_is_not_found(client: Client, head: Path) -> None:
    await load(client, head)
    assert (await client.get("/v1/adapters")).json() == {"adapters": ["parcels-v1"]}
    assert (await client.delete("/v1/adapters/parcels-v1")).status_code == 200
    assert (await client.post("/v1/decide", json=ASK)).status_code == 404
    assert (await client.delete("/v1/adapters/parcels-v1")).status_code == 404


async def test_only_directories_of_the_cache_are_loaded(
    client: Client, head: Path, cache: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    head.rename(outside)
    (cache / "link").symlink_to(outside)
    for path in (outside, cache / "link", cache / ".." / "outside", cache, cache / "absent", "/", "\0"):
        refused = await client.put("/v1/adapters/parcels-v1", json={"path": str(path)})
        assert refused.status_code == 422
        assert str(tmp_path) not in refused.text
    assert (await client.get("/v1/adapters")).json() == {"adapters": []}


async def test_an_artifact_that_is_altered_or_someone_elses_is_refused(client: Client, head: Path) -> None:
    assert (await load(client, head, name="other-v1")).status_code == 422
    with (head / "neighbours.npz").open("ab") as file:
        file.write(b"x")
    assert (await load(client, head)).status_code == 422


async def test_a_pickle_in_an_array_file_is_never_opened(client: Client, head: Path) -> None:
    manifest = msgspec.json.decode((head / "manifest.json").read_bytes(), type=Manifest)
    np.savez(head / "head.npz", weights=np.array([print], dtype=object), bias=np.zeros(1))
    write_manifest(head, manifest)
    assert (await load(client, head)).status_code == 422


async def test_arrays_that_do_not_fit_are_refused(client: Client, head: Path) -> None:
    manifest = msgspec.json.decode((head / "manifest.json").read_bytes(), type=Manifest)
    np.savez(head / "head.npz", weights=np.full((2, 32), np.nan), bias=np.zeros(2))
    write_manifest(head, manifest)
    assert (await load(client, head)).status_code == 422
    np.savez(head / "head.npz", weights=np.zeros((3, 32)), bias=np.zeros(3))
    write_manifest(head, manifest)
    assert (await load(client, head)).status_code == 422


async def test_a_name_is_loaded_twice_only_with_the_same_content(client: Client, head: Path) -> None:
    await load(client, head)
    assert (await load(client, head)).status_code == 200
    manifest = msgspec.json.decode((head / "manifest.json").read_bytes(), type=Manifest)
    write_manifest(head, msgspec.structs.replace(manifest, dataset_hash="another"))
    assert (await load(client, head)).status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"adapter": "parcels-v1"}', 400),
        (b'{"adapter": "parcels-v1", "query": 3}', 400),
        (b'{"adapter": "parcels-v1", "query": "\\ud800"}', 400),
        (b'{"adapter": "parcels-v1", "query": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"adapter": "parcels-v1", "query": "' + b"q" * (MAX_QUERY + 1) + b'"}', 413),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
async def test_a_bad_body_is_refused_without_being_repeated(
    client: Client, head: Path, body: bytes, status: int
) -> None:
    await load(client, head)
    refused = await client.post("/v1/decide", content=body)
    assert refused.status_code == status
    assert set(refused.json()) == {"error"} and len(refused.text) < 120


async def test_unknown_routes_and_methods_are_told_apart(client: Client) -> None:
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.get("/v1/decide")).status_code == 405
    assert (await client.put("/v1/adapters/..%2Fx", json={"path": "x"})).status_code == 400
    assert (await client.get("/readyz")).status_code == 200


async def load(client: Client, directory: Path, *, name: str = "parcels-v1") -> httpx.Response:
    return await client.put(f"/v1/adapters/{name}", json={"path": str(directory)})


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


@pytest.fixture
def train_one(tmp_path: Path, cache: Path, encoder: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        spec = {
            "rung": "head",
            "kind": "label",
            "encoder_model": str(encoder),
            "data": str(write_rows(tmp_path / "rows.jsonl", repeat=4)),
            "out": str(cache / changes["adapter"]),
            "checkpoint_dir": str(tmp_path / "checkpoints"),
        }
        train(msgspec.convert(spec | changes, RunSpec))
        return cache / str(changes["adapter"])

    return make


@pytest.fixture
def head(train_one: Callable[..., Path]) -> Path:
    return train_one(adapter="parcels-v1")


@pytest.fixture
def lora(train_one: Callable[..., Path], tmp_path: Path) -> Path:
    base = write_base(tmp_path / "base")
    return train_one(adapter="parcels-v2", rung="lora", base_model=str(base), epochs=1, rank=2, alpha=4)


@pytest.fixture
async def client(cache: Path, encoder: Path) -> AsyncIterator[Client]:
    """The app behind an in-process transport, started and stopped as a server would."""
    app = EncoderApp(embedder=Embedder(encoder), cache=cache)
    events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    living = asyncio.create_task(app({"type": "lifespan"}, events.get, answers.put))
    await events.put({"type": "lifespan.startup"})
    await answers.get()
    async with Client(transport=httpx.ASGITransport(app), base_url="http://encoder") as client:
        yield client
    await events.put({"type": "lifespan.shutdown"})
    await living
