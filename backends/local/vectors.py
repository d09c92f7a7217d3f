"""Embeddings from a local model."""

from yarl import URL

from backends.base import Call, Local, Relayed
from backends.local.pool import Pool
from backends.local.seat import explained, headers
from backends.relay import Wire
from compat.canonical.error import BadResponse, Unreachable
from compat.canonical.request import Envelope
from compat.openai.envelope import upstream_body
from compat.openai.fitting import fitted
from compat.taps import tap


class Vectors:
    """What a local backend does with texts to embed.  Callers have checked that the model can."""

    def __init__(self, pool: Pool, wire: Wire) -> None:
        self._pool = pool
        self._wire = wire

    async def relay(self, envelope: Envelope, local: Local, call: Call) -> Relayed:
        envelope, lost = fitted(envelope, local.model.capabilities)
        call.drop(*lost)
        body = upstream_body(envelope, local.name, streams=False)
        async with self._pool.lease(local.name, call) as lease:
            url = URL(lease.url + "/v1/embeddings")
            try:
                return await self._wire.send(url, headers(lease.key), body, tap(envelope), call, stream=False)
            except (Unreachable, BadResponse) as e:
                raise await explained(e, lease) from e
