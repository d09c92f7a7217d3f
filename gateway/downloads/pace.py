"""How fast all transfers together may go."""


class Pace:
    """Shared by the threads that receive."""

    def __init__(self, bytes_per_s: int | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        """May be changed while transfers run; None is no limit."""

    def wait_s(self, size_bytes: int) -> float:
        """How long whoever has just received so much is to sleep before it goes on."""
        raise NotImplementedError
