"""Tells replicas which adapters to hold: vLLM's LoRA routes and the encoder's, spoken by the deployer alone."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import aiohttp

from serving.core.gates import Rung

LOAD_SECONDS, UNLOAD_SECONDS = 120.0, 10.0


class UnableToLoad(Exception):
    """A replica is away or refuses the adapter; the message names which kind, never its address."""


async def load_adapter(
    name: str, directory: Path, *, rung: Rung, encoder_urls: Iterable[str], vllm_urls: Iterable[str]
) -> None:
    """Load an adapter into every replica that does not hold it yet. Raises UnableToLoad."""
    async with _session() as http:
        for url in encoder_urls:
            if name not in await _held_by_encoder(http, url):
                await _load_into_encoder(http, url, name, directory)
        for url in vllm_urls if rung is Rung.LORA else ():
            if name not in await _held_by_vllm(http, url):
                await _load_into_vllm(http, url, name, directory)


async def unload_adapter(name: str, *, rung: Rung, encoder_urls: Iterable[str], vllm_urls: Iterable[str]) -> bool:
    """Take an adapter out of every replica, of all at once; True if each was reached and holds it no more."""
    async with _session(seconds=UNLOAD_SECONDS) as http:
        asked = [http.delete(f"{url}/v1/adapters/{name}") for url in encoder_urls]
        for url in vllm_urls if rung is Rung.LORA else ():
            asked.append(http.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name}))
        return all(await asyncio.gather(*map(_is_taken, asked)))


def _session(*, seconds: float = LOAD_SECONDS) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds))


async def _held_by_encoder(http: aiohttp.ClientSession, url: str) -> set[str]:
    found = await _get(http, f"{url}/v1/adapters", "the encoder")
    return {str(item["name"]) if isinstance(item, dict) else str(item) for item in found.get("adapters", [])}


async def _held_by_vllm(http: aiohttp.ClientSession, url: str) -> set[str]:
    found = await _get(http, f"{url}/v1/models", "vLLM")
    return {str(item.get("id")) for item in found.get("data", [])}


async def _load_into_encoder(http: aiohttp.ClientSession, url: str, name: str, directory: Path) -> None:
    await _send(http.put(f"{url}/v1/adapters/{name}", json={"path": str(directory)}), "the encoder")


async def _load_into_vllm(http: aiohttp.ClientSession, url: str, name: str, directory: Path) -> None:
    body = {"lora_name": name, "lora_path": str(directory)}
    await _send(http.post(f"{url}/v1/load_lora_adapter", json=body), "vLLM")


async def _get(http: aiohttp.ClientSession, url: str, who: str) -> dict[str, list[dict[str, object]]]:
    try:
        async with http.get(url) as response:
            if response.status != 200:
                raise UnableToLoad(f"{who} answers {response.status}")
            found = await response.json()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UnableToLoad(f"{who} cannot be reached") from error
    return found if isinstance(found, dict) else {}


async def _send(request: "aiohttp.client._RequestContextManager", who: str) -> None:
    try:
        async with request as response:
            if response.status >= 300:
                raise UnableToLoad(f"{who} refuses the adapter with {response.status}")
    except (aiohttp.ClientError, OSError) as error:
        raise UnableToLoad(f"{who} cannot be reached") from error


async def _is_taken(request: "aiohttp.client._RequestContextManager") -> bool:
    """Whether the replica took the adapter out, or did not know it."""
    try:
        async with request as response:
            return response.status < 300 or response.status == 404
    except (aiohttp.ClientError, OSError):  # a timeout is one of the latter
        return False
