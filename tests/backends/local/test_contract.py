"""The local backend keeps the promises that every backend makes, on every engine."""

import pytest

from tests.backends.contract import CHECKS, Check, Subject
from tests.backends.local.conftest import Start


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_local_backend_keeps_its_promises(check: Check, start: Start) -> None:
    backend = start()
    await check(Subject(backend=backend, model="smol", endless="smol", failing=["absent"], secrets=["127.0.0.1", "/"]))
