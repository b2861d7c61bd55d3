"""What this process holds of each tenant's bodies, and no more: one's long and slow calls take nobody else's memory."""

from typing import Final, Self

UNCOUNTED: Final = 65_536  # bytes of a body that nobody counts: the number of its tenant's calls bounds those


class Memory:
    """All that is held, by tenant. `most` is bytes of one tenant."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[str, int] = {}

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

    __slots__ = ("_memory", "held", "tenant_id")

    def __init__(self, memory: Memory, tenant_id: str = "") -> None:
        self.tenant_id = tenant_id
        self.held = 0
        self._memory = memory

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
        if not self._memory.take(self.tenant_id, counted):
            return False
        self.held += counted
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.held:
            self._memory.give_back(self.tenant_id, self.held)
            self.held = 0
