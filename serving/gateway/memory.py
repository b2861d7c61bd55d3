"""What this process holds of each tenant's bodies, and no more: one's long and slow calls take nobody else's memory."""

from typing import Final, Self

UNCOUNTED: Final = 65_536  # bytes of a body that nobody counts: the number of its tenant's calls bounds those


class Memory:
    """All that is held, by tenant. `most` is bytes of one tenant, `most_calls` its calls under way."""

    def __init__(self, most: int, *, most_calls: int) -> None:
        self.most = most
        self.most_calls = most_calls
        self._held: dict[str, int] = {}
        self._calls: dict[str, int] = {}

    def begin(self, tenant_id: str) -> bool:
        """One call more; False where that would be too many."""
        calls = self._calls.get(tenant_id, 0)
        if calls >= self.most_calls:
            return False
        self._calls[tenant_id] = calls + 1
        return True

    def end(self, tenant_id: str) -> None:
        """One call less."""
        left = self._calls.pop(tenant_id, 0) - 1
        if left > 0:
            self._calls[tenant_id] = left

    def take(self, tenant_id: str, size: int) -> bool:
        """Hold so many bytes more; False where that would be too many."""
        held = self._held.get(tenant_id, 0) + size
        if held > self.most:
            return False
        self._held[tenant_id] = held
        return True

    def give_back(self, tenant_id: str, size: int) -> None:
        """Hold so many less."""
        left = self._held.pop(tenant_id, 0) - size
        if left > 0:
            self._held[tenant_id] = left


class Hold:
    """What one call holds: `with Hold(memory) as hold:` around all of it. Its tenant is known once its key is."""

    __slots__ = ("_memory", "_tenant_id", "held")

    def __init__(self, memory: Memory) -> None:
        self.held = 0
        self._tenant_id = ""
        self._memory = memory

    def begin(self, tenant_id: str) -> bool:
        """The call is this tenant's; False where it has too many under way."""
        if not self._memory.begin(tenant_id):
            return False
        self._tenant_id = tenant_id
        return True

    def give_back(self, part: int) -> None:
        """Hold so many bytes less than were taken."""
        self._memory.give_back(self._tenant_id, part)
        self.held -= part

    @property
    def most_calls(self) -> int:
        """Calls that its tenant may have under way in all."""
        return self._memory.most_calls

    @property
    def most(self) -> int:
        """Bytes that its tenant may hold in all."""
        return self._memory.most

    def take(self, part: int, *, size: int) -> bool:
        """Hold so many bytes more of a body that has `size` of them with these, whose first UNCOUNTED count for
        nothing; False where that would be too many.
        """
        counted = min(part, size - UNCOUNTED)
        if counted <= 0:
            return True
        if not self._memory.take(self._tenant_id, counted):
            return False
        self.held += counted
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._tenant_id:
            self._memory.end(self._tenant_id)
        if self.held:
            self.give_back(self.held)
