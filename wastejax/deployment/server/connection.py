"""uvicorn's HTTP/1.1 connection, with an end to those that never finish asking."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 20.0  # seconds between two looks


class Connection(H11Protocol):
    """Closes a connection on which no request is being answered, twice in a row.

    uvicorn limits the pause between two requests, not the time that the head of one may take, nor that for which a
    refused body goes on arriving. The time for a body that is wanted is the application's to limit.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts looking."""
        super().connection_made(transport)
        self._seen_idle: object = self  # no cycle yet, and not seen idle
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops looking, or the timer would keep what the connection holds."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._seen_idle is self.cycle:
            self.transport.close()
            return
        self._seen_idle = self.cycle if idle else self
        self._timer = self.loop.call_later(PATIENCE, self._look)
