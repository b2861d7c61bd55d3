"""The time as a use case asks for it where one `now` does not do: it waits, or takes long."""

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]
