"""Users' own accounts: whose credential serves whom, opened when wanted and closed when nobody uses it.

Invariant: an account serves the user (tenant and owner) of its credential, and nobody else.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from compat.canonical.error import AuthFailed, Forbidden, GatewayError, InvalidRequest, Overloaded
from compat.canonical.model import Modality, Model
from compat.canonical.principal import Principal
from gateway.account import Account, Secret, Storage
from gateway.auth.vault import Broken, Sealed, Vault
from gateway.db.credentials import Credential, Use
from gateway.house import Estate
from gateway.registry import named
from gateway.routing.router import Plan, Route
from gateway.settings import BackendEntry
from gateway.telemetry.logging import logger
from gateway.visit import Visit

FRESH_S = 60.0
"""How long it is taken for true which credentials a user has; changes made here count at once."""
KNOWN_MAX = 10_000
"""Users whose credentials are kept in mind."""
OPEN_MAX = 128
"""Accounts that are kept open while nobody uses them.  What they hide is looked for in every line of the log, which
for so many takes 10 µs."""
IDLE_S = 300.0
MINUTE_S = 60.0
TICK_S = 5.0
LOOK_S = 30.0
"""How often it is looked whether anybody has a credential at all."""

_secret = msgspec.json.Decoder(Secret).decode


class Rows(Protocol):
    async def of(self, tenant: str, owner: str) -> list[Credential]: ...
    async def get(self, id_: str) -> Credential | None: ...
    async def some(self) -> bool: ...
    async def reseal(self, known: Credential, sealed: Sealed) -> bool: ...
    async def used(self, uses: Mapping[str, Use]) -> None: ...


class _Known(Struct, frozen=True):
    rows: Sequence[Credential]
    until: float
    """On the monotonic clock."""


class Accounts:
    def __init__(
        self,
        rows: Rows,
        vault: Vault,
        *,
        learn: Callable[[Iterable[str]], None],
        forget: Callable[[str, str], None],
    ) -> None:
        self._rows = rows
        self._vault = vault
        self._learn = learn
        """Tells the log's redactor what must not be written."""
        self._forget = forget
        """Told a backend and an account: what was known of its routes' health is of no use any more."""
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[Sequence[Credential]]] = {}
        self._open: OrderedDict[str, Account] = OrderedDict()
        """By the credential's id, the longest unused first."""
        self._leaving: set[Account] = set()
        """Retired, but still lent."""
        self._uses: dict[str, Use] = {}
        """What is to be written down, by the credential's id."""
        self._changes = 0
        """Counted, so that what was read before a change is not kept after it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.idle = False
        """Nobody has a credential of their own."""

    async def of(self, visit: Visit, estate: Estate) -> "Own | None":
        """What the user who asks brings; None for nothing.  Raises Overloaded when nobody can tell now."""
        assert visit.principal is not None, "the guard lets nobody in without one"
        found = {
            row.backend: row
            for row in await self._credentials(visit.principal)
            if (entry := estate.config.backends.get(row.backend)) is not None and entry.terms.own_keys != "refused"
        }
        return Own(self, visit, estate, found) if found else None

    def lend(self, row: Credential, entry: BackendEntry, visit: Visit) -> Account:
        """The account of a credential, until the visit is over.  Raises AuthFailed and Forbidden."""
        account = self._open.get(row.id)
        if account is not None and not account.serves(row, entry):
            self._retire(account)
            account = None
        if account is None:
            account = self._opened(row, entry)
        self._open.move_to_end(row.id)
        if account not in visit.lent:
            account.lent += 1
            visit.lent = (*visit.lent, account)
        account.touch()
        return account

    def give_back(self, visit: Visit) -> None:
        lent, visit.lent = visit.lent, ()
        for account in lent:
            account.lent -= 1
            if account.retired and not account.lent:
                self._close(account)

    def seal(self, secret: Secret, bond: Sequence[str | None]) -> Sealed:
        self._learn((*secret.words, *self._words()))
        return self._vault.seal(msgspec.json.encode(secret), bond)

    def changed(self, row: Credential) -> None:
        """A credential was given, replaced or deleted here: the next request asks the database."""
        self._changes += 1
        self.idle = False
        self._known.pop((row.tenant, row.owner), None)
        if (account := self._open.get(row.id)) is not None:
            self._retire(account)
        self._forget(row.backend, row.id)

    async def keep(self) -> None:
        """Write down what was used, and close what is not, until cancelled; everything then."""
        looked = 0.0
        try:
            while True:
                now = time.monotonic()
                if now - looked >= LOOK_S:
                    await self.look()
                    looked = now
                self._close_idle()
                await self._write()
                await asyncio.sleep(TICK_S)
        finally:
            await self._write()
            for account in list(self._open.values()):
                self._retire(account, at_once=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """Find out whether anybody has a credential: without one, no request has to ask."""
        changes = self._changes
        try:
            some = await self._rows.some()
        except Exception as e:
            logger().warning("credentials_unknown", error=type(e).__name__)
            return
        if changes == self._changes:
            self.idle = not some

    async def _credentials(self, principal: Principal) -> Sequence[Credential]:
        whose = (principal.tenant, principal.id)
        known = self._known.get(whose)
        if known is not None and time.monotonic() < known.until:
            return known.rows
        asking = self._asking.get(whose)
        if asking is None:
            # A task of its own: many may wait for it, and none who leaves takes it from the others.
            asking = self._asking[whose] = asyncio.create_task(self._ask(whose))
            asking.add_done_callback(lambda _: self._asking.pop(whose, None))
        await asyncio.wait({asking})
        if not asking.cancelled() and asking.exception() is None:
            return asking.result()
        if known is not None:
            return known.rows  # the database is away: what was true a minute ago
        raise Overloaded("Users' own keys cannot be looked up right now; try again.", retry_after_s=1.0)

    async def _ask(self, whose: tuple[str, str]) -> Sequence[Credential]:
        while True:
            changes = self._changes
            rows = await self._rows.of(*whose)
            if changes == self._changes:
                break
        self._known[whose] = _Known(rows, time.monotonic() + FRESH_S)
        self._known.move_to_end(whose)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return rows

    def _opened(self, row: Credential, entry: BackendEntry) -> Account:
        try:
            secret = _secret(self._vault.open(row.sealed, row.bond))
        except (Broken, msgspec.DecodeError) as e:
            reason = str(e) if isinstance(e, Broken) else "what was sealed is no credential"
            logger().error("credential_unreadable", credential=row.id, backend=row.backend, reason=reason)
            if row.status != "unreadable":
                self._spawn(self._rows.used({row.id: Use(row.last_used_at, "unreadable", row.updated_at)}))
            raise AuthFailed(
                f"Your own key for backend '{row.backend}' cannot be read any more; "
                "give it again with POST /v1/credentials."
            ) from e
        storage = Storage(
            load=lambda: self._load(row), save=lambda secret: self._save(row, secret), note=self._tell_words
        )
        self._learn((*secret.words, *self._words()))
        try:
            account = Account(row, secret, entry, storage)
        except (InvalidRequest, ValueError) as e:
            raise Forbidden(
                f"Your own address for backend '{row.backend}' is not allowed here any more; "
                "give another with POST /v1/credentials.",
                code="credential_refused",
            ) from e
        self._close_idle()
        self._open[row.id] = account
        self._tell_words()
        if row.sealed.master_id != self._vault.master_id:
            self._spawn(self._reseal(row, secret))
        return account

    async def _load(self, row: Credential) -> Secret | None:
        now = await self._rows.get(row.id)
        if now is None or now.updated_at != row.updated_at:
            return None
        try:
            return _secret(self._vault.open(now.sealed, now.bond))
        except (Broken, msgspec.DecodeError):
            return None

    async def _save(self, row: Credential, secret: Secret) -> None:
        """Keep a secret that changed by itself, unless its user has given another meanwhile."""
        try:
            now = await self._rows.get(row.id)
            if now is not None and now.updated_at == row.updated_at:
                await self._reseal(now, secret)
        except Exception:
            # It serves as long as this process does, which is better than not at all.
            logger().exception("credential_unsaved", credential=row.id, backend=row.backend)

    async def _reseal(self, row: Credential, secret: Secret) -> None:
        sealed = self._vault.seal(msgspec.json.encode(secret), row.bond)
        if await self._rows.reseal(row, sealed):
            self._known.pop((row.tenant, row.owner), None)

    def _close_idle(self) -> None:
        now = time.time()
        for account in list(self._open.values()):
            crowded = len(self._open) >= OPEN_MAX
            if not crowded and now - (account.used_at or 0.0) < IDLE_S:
                break
            if not account.lent:
                self._retire(account)

    def _retire(self, account: Account, *, at_once: bool = False) -> None:
        account.retired = True
        self._open.pop(account.id, None)
        self._note_use(account)
        self._leaving.add(account)
        if at_once or not account.lent:
            self._close(account)

    def _close(self, account: Account) -> None:
        self._leaving.discard(account)
        self._spawn(account.aclose())
        self._tell_words()

    def _words(self) -> list[str]:
        return [word for account in (*self._open.values(), *self._leaving) for word in account.words]

    def _tell_words(self) -> None:
        self._learn(self._words())

    def current(self, row: Credential) -> Credential:
        """The row, with what has not been written down yet."""
        account = self._open.get(row.id)
        if account is None or account.row.updated_at != row.updated_at:
            return row
        return msgspec.structs.replace(row, last_used_at=account.used_at, status=account.status)

    async def _write(self) -> None:
        for account in self._open.values():
            self._note_use(account)
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._rows.used(uses)
        except Exception as e:
            self._uses = uses | self._uses
            logger().warning("credential_uses_unwritten", error=type(e).__name__)

    def _note_use(self, account: Account) -> None:
        """Once a minute is enough, unless it fares differently."""
        at, status = account.noted
        if account.status != status or (account.used_at or 0.0) - (at or 0.0) >= MINUTE_S:
            account.noted = account.used_at, account.status
            self._uses[account.id] = Use(account.used_at, account.status, account.row.updated_at)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().error("account_task_failed", exc_info=error)


class Own:
    """What one user brings, for one visit."""

    def __init__(self, accounts: Accounts, visit: Visit, estate: Estate, rows: Mapping[str, Credential]) -> None:
        self._accounts = accounts
        self._visit = visit
        self._estate = estate
        self._rows = rows
        """By backend."""

    def has(self, backend: str) -> bool:
        return backend in self._rows

    def account(self, backend: str) -> Account:
        """The user's account at a backend for which they have one.  Raises AuthFailed and Forbidden."""
        return self._accounts.lend(self._rows[backend], self._estate.config.backends[backend], self._visit)

    async def models(self) -> list[Model]:
        """Every model, with what the user's own accounts offer in place of what the house's do."""
        house, *own = await asyncio.gather(self._estate.registry.all(), *map(self._listed, self._rows))
        return [model for model in house if model.backend not in self._rows] + [m for models in own for m in models]

    async def find(self, name: str, modality: Modality = "text") -> Model | None:
        """The model of this bare name, local ones first, and of those who list it one that makes this."""
        found = named(self._estate.registry.local(), name, modality)
        return found or named(await self.models(), name, modality)

    async def _listed(self, backend: str) -> list[Model]:
        try:
            return await self.account(backend).registry.all()
        except GatewayError:
            return []


def served(plan: Plan, own: Own | None, demanding: Container[str], visit: Visit) -> Plan:
    """The plan with the user's own accounts where they have any.

    demanding: the backends that serve nobody without one.
    Raises Forbidden, AuthFailed, when no route is left.
    """
    routes: list[Route] = []
    failure: GatewayError | None = None
    for route in plan.routes:
        name = route.backend.name
        if own is not None and own.has(name):
            try:
                account = own.account(name)
            except GatewayError as e:
                visit.trail.append((route.name, e.word))
                failure = e
                continue
            routes.append(msgspec.structs.replace(route, backend=account.backend, account=account.id))
        elif name in demanding:
            visit.trail.append((route.name, "needs the user's own key"))
            failure = failure or key_required(name)
        else:
            routes.append(route)
    if failure is not None and not routes:
        raise failure
    return msgspec.structs.replace(plan, routes=tuple(routes))


def key_required(backend: str) -> Forbidden:
    return Forbidden(
        f"Backend '{backend}' serves you with a provider key of your own only; give it one with POST /v1/credentials.",
        code="credential_required",
    )
