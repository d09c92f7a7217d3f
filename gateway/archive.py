"""What is kept in the database, and who reads and writes it there: open while the application runs."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway.accounts import Accounts
from gateway.auth.issued import IssuedKeys
from gateway.auth.registrar import Registrar
from gateway.auth.vault import Vault
from gateway.db import engine as database
from gateway.db.answers import AnswerRows
from gateway.db.artifacts import ArtifactRows
from gateway.db.audit import AuditRows
from gateway.db.budgets import BudgetRows
from gateway.db.credentials import CredentialRows
from gateway.db.items import ItemRows
from gateway.db.jobs import JobRows
from gateway.db.keys import KeyRows
from gateway.db.memory import MemoryRows
from gateway.db.models import ModelRows
from gateway.db.queue import DurableQueue
from gateway.db.quotas import QuotaRows
from gateway.db.responses import ResponseRows
from gateway.db.schemas import SchemaRows
from gateway.db.sessions import SessionRows
from gateway.db.usage import UsageRows
from gateway.house import House
from gateway.limits.budgets import KEPT_DAYS
from gateway.secrets import OwnSecrets
from gateway.telemetry.logging import Redactor
from gateway.telemetry.usage import forget_old

REPORT_S = 30.0
"""How long the database may take for one question about usage."""


class Archive:
    def __init__(self, engine: database.Engine, house: House, own: OwnSecrets, redactor: Redactor) -> None:
        config = house.estate.config
        self._engine = engine
        self._house = house
        self._writers: list[asyncio.Task[None]] = []
        self._quotas = QuotaRows(engine)
        keys = KeyRows(engine)
        self.issued = IssuedKeys(keys, own.key_pepper)
        """The keys that were given out."""
        self.registrar = Registrar(keys, own.key_pepper, self.issued)
        """Who gives keys out."""
        self.acts = AuditRows(engine)
        """What was done by whom."""
        self.usage = UsageRows(engine, REPORT_S)
        """What requests took and cost."""
        self.turns = ResponseRows(engine)
        """The conversations that are kept."""
        self.credentials = CredentialRows(engine)
        """Users' own provider keys, as they are kept."""
        vault = Vault(own.master_key, (key.encode() for key in config.secrets.old_master_keys))
        self.accounts = Accounts(self.credentials, vault, learn=redactor.learn_users, forget=house.book.forget)
        """The same, in use."""
        self.schemas = SchemaRows(engine)
        """What was said of models' parameters, and when."""
        self.session_rows = SessionRows(engine)
        self.item_rows = ItemRows(engine)
        self.artifact_rows = ArtifactRows(engine)
        self.answer_rows = AnswerRows(engine)
        self.job_rows = JobRows(engine)
        self.queue = DurableQueue(engine)
        """Whose turn it is among them."""

    async def open(self) -> None:
        """Read what has to be known from the start, and begin to write."""
        house, engine = self._house, self._engine
        await house.entries.open(models := ModelRows(engine))
        house.limiter.budgets.open(spent := BudgetRows(engine))
        house.quotas.recall(await self._quotas.all())
        house.estate.reckoning.recall(await (memory := MemoryRows(engine)).all())
        await self.accounts.look()
        self._write(self.accounts.keep())
        self._write(self.issued.write())
        self._write(house.ledger.write_to(self.usage))
        self._write(forget_old(self.usage, lambda: house.estate.config.telemetry.usage_days))
        self._write(forget_old(spent, lambda: KEPT_DAYS, "budgets"))
        self._write(house.quotas.write_to(self._quotas))
        self._write(house.estate.reckoning.write_to(memory))
        self._write(house.entries.write_to(models))

    async def answers(self) -> bool:
        """Whether the database can be asked right now."""
        return await database.answers(self._engine)

    async def aclose(self) -> None:
        """Write what is not written yet."""
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        await self.turns.settle()
        await self.session_rows.settle()
        await self.artifact_rows.settle()
        await self.credentials.settle()
        await self._house.limiter.aclose()

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        self._writers.append(asyncio.create_task(work))
