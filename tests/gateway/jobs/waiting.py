"""Waiting for what happens beside a test."""

import asyncio
from collections.abc import Callable


async def eventually(look: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not look():
            await asyncio.sleep(0.01)
