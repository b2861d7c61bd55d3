"""The vendors' own clients, and a server that sends them what we would."""

from threading import Thread

import pytest

from tests.fakes.vendor import Replies, Vendor


@pytest.fixture(scope="session")
def vendor():
    with Vendor(("127.0.0.1", 0), Replies) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
