"""The company of the demo, as its people meet the product: the portal's forms, as a browser sends them, and the API."""

import re
from dataclasses import dataclass, field
from typing import Any

import aiohttp

KEY = re.compile(r"us_[A-Za-z0-9_-]{43}")
PAGE = 200


class UnableToDo(Exception):
    """The portal or the API did not do what was asked; the message names the page and the status."""


@dataclass(slots=True)
class Customer:
    """One company. `key` is there once it was shown."""

    http: aiohttp.ClientSession = field(repr=False)
    web: str
    key: str = field(default="", repr=False)

    async def sign_up(self, *, company: str, email: str, password: str) -> None:
        """Through the portal's own form."""
        await self.submit("/signup", company=company, email=email, password=password)

    async def make_key(self, name: str) -> None:
        """Make a key, and copy it from the one page that shows it."""
        shown = KEY.search(await self.submit("/keys/new", form="/keys", name=name, scope="manage", may_override="on"))
        if shown is None:
            raise UnableToDo("the page with the new key shows none")
        self.key = shown.group()

    async def submit(self, path: str, *, form: str | None = None, **fields: str) -> str:
        """Fill in and send a form, as a browser would, and give the page that follows."""
        async with self.http.get(self.web + (form or path)) as response:
            page = await response.text()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if token is None:
            raise UnableToDo(f"{form or path} shows no form ({response.status})")
        data = {**fields, "csrfmiddlewaretoken": token.group(1)}
        async with self.http.post(self.web + path, data=data) as response:
            page = await response.text()
            if response.status >= 400:
                raise UnableToDo(f"{path} answers {response.status}")
        return page

    async def read(self, path: str) -> Any:
        """One answer of the API."""
        headers = {"authorization": f"Bearer {self.key}"}
        async with self.http.get(f"{self.web}/api/v1/{path}", headers=headers) as response:
            if response.status != 200:
                raise UnableToDo(f"/api/v1/{path.partition('?')[0]} answers {response.status}")
            return await response.json()

    async def read_all(self, path: str) -> list[dict[str, Any]]:
        """Every row of a listing, page after page."""
        rows: list[dict[str, Any]] = []
        following: str | None = f"{path}?limit={PAGE}"
        while following:
            page = await self.read(following)
            rows += page["results"]
            following = page["next"] and page["next"].partition("/api/v1/")[2]
        return rows
