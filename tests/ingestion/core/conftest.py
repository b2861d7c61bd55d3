"""Properties here are about answers, not about how busy the machine is."""

from threading import Thread

import pytest
from hypothesis import settings

from tests.fakes.vendor import Replies, Vendor

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def vendor():
    with Vendor(("127.0.0.1", 0), Replies) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
