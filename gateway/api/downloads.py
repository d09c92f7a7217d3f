"""POST /v1/models/download, and /v1/models/{id}/update and /rollback: models from the hub, and their versions."""

from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from litestar import Response, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from msgspec import Meta, Struct

from compat.canonical.error import InvalidRequest
from gateway.api.jobs import JobCard, card
from gateway.api.reading import Disconnected
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import Asked, attended, by_of, decoded, grant_of
from gateway.house import House
from gateway.hub.choice import Wanted
from gateway.jobs.job import Job
from gateway.registry.register import Register, act_of

Text = Annotated[str, Meta(min_length=1, max_length=500)]


class DownloadRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be downloaded: `repo`, or a registered `model`."""

    repo: Text | None = None
    """ORG/NAME on the hub, or NAME where the hub calls it so."""
    model: Text | None = None
    """Instead of it: a registered model, BACKEND/NAME, whose files are fetched from its source."""
    file: Text | None = None
    """A file of the repository; of a split one any part."""
    quantization: Text | None = None
    """Like `Q4_K_M`, in place of `file`; `best fit`, or neither of them, takes the best that fits this machine."""
    revision: Text | None = None
    """A branch, a tag or a commit; unless said, the main branch."""
    name: Text | None = None
    """What it is to be called here; unless said, after its file or repository."""
    backend: Text | None = None
    """The local backend that is to run it; need not be said where there is one."""
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    """The higher is done first."""


class UpdateOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be said yet."""


class RollbackOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is to be served."""

    commit: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """Its commit, or the beginning of it; unless said, the newest besides the one in use."""


class ModelVersions(Struct, frozen=True, kw_only=True):
    """The versions of a downloaded model."""

    id: str
    object: Literal["model.versions"] = "model.versions"
    updated: bool
    """Whether another one is served now."""
    version: str | None
    """The commit that is served."""
    versions: list[str]
    """The commits that are on the disk, the newest first."""


_BEGUN = ResponseSpec(
    JobCard, generate_examples=False, description="The job that fetches it; `location` says where it can be watched."
)
_download = msgspec.json.Decoder(DownloadRequest)
_update, _rollback = msgspec.json.Decoder(UpdateOptions), msgspec.json.Decoder(RollbackOptions)


def routes(house: House) -> list[Any]:
    register = Register(house)

    def begun(job: Job, status: int = 202) -> Response[Any]:
        return Response(card(job), status_code=status, headers={"location": f"/v1/jobs/{job.id}"})

    async def noted(request: Asked, verb: str, target: str, **detail: Any) -> None:
        await house.archive.acts.add(act_of(verb, target, grant_of(request), by_of(request), detail))

    def registered(request: Asked, model_id: str) -> str:
        """The id of the model that is meant.  Raises ModelNotFound."""
        return register.entry(unquote(model_id), grant_of(request)).id

    @post(
        "/v1/models/download",
        opt={"scope": "models:write", "body": DownloadRequest},
        status_code=202,
        responses={
            202: _BEGUN,
            200: ResponseSpec(JobCard, generate_examples=False, description="It is here already; the job is done."),
        },
        summary="Download a model",
        description="Fetch a model from the hub and serve it.  What is to be fetched is decided at once, and refused "
        "at once where it cannot be had, could run code or has no room; a job does the rest.  Who asks for what is on "
        "its way gets the job that brings it.  The model is listed as `downloading`, and served when all of its files "
        "are here and are what their hashes say.",
    )
    async def download_model(request: Asked) -> Response[Any]:
        form = await decoded(request, _download)
        _check(form)
        grant = grant_of(request)
        principal = grant.principal
        if form.repo is not None:
            wanted = Wanted(repo=form.repo, file=form.file, quantization=form.quantization, revision=form.revision)
            work = house.depot.downloads.begin(
                wanted,
                tenant=principal.tenant,
                owner=principal.id,
                name=form.name,
                backend=form.backend,
                priority=form.priority,
                allows=grant.covers,
            )
        else:
            assert form.model is not None, "held against the form"
            work = house.depot.downloads.begin_registered(
                registered(request, form.model), tenant=principal.tenant, owner=principal.id, priority=form.priority
            )
        try:
            job, new = await attended(request, work)
        except Disconnected:
            return Response(None, status_code=CLIENT_GONE)
        if new:
            await noted(request, "download", job.target or "", repo=job.spec.get("repo"), commit=job.spec.get("commit"))
        return begun(job, 200 if job.status == "done" else 202)

    @post(
        "/v1/models/{model_id:str}/update",
        opt={"scope": "models:write", "body": UpdateOptions},
        status_code=200,
        responses={202: _BEGUN},
        summary="Update a model",
        description="Ask the hub for a newer revision of a downloaded model.  Where there is one, a job fetches what "
        "has changed beside what is here, and serves it when nobody uses the model; what runs is finished on the old "
        "files, which stay for /rollback.",
    )
    async def update_model(request: Asked, model_id: FromPath[str]) -> Response[Any]:
        await decoded(request, _update)
        id_, principal = registered(request, model_id), grant_of(request).principal
        try:
            job = await attended(
                request, house.depot.downloads.update(id_, tenant=principal.tenant, owner=principal.id)
            )
        except Disconnected:
            return Response(None, status_code=CLIENT_GONE)
        if job is None:
            return Response(_versions(house, id_, updated=False), status_code=200)
        await noted(request, "update", id_, commit=job.spec.get("commit"))
        return begun(job)

    @post(
        "/v1/models/{model_id:str}/rollback",
        opt={"scope": "models:write", "body": RollbackOptions},
        status_code=200,
        responses={200: ResponseSpec(ModelVersions, generate_examples=False, description="What is served now.")},
        summary="Go back to another version of a model",
        description="Serve another of the versions that are on the disk, once nobody uses the model.  It stays so "
        "until /update is asked for.",
    )
    async def roll_back_model(request: Asked, model_id: FromPath[str]) -> Response[Any]:
        options = await decoded(request, _rollback)
        id_ = registered(request, model_id)
        try:
            await attended(request, house.depot.downloads.roll_back(id_, options.commit))
        except Disconnected:
            return Response(None, status_code=CLIENT_GONE)
        answer = _versions(house, id_, updated=True)
        await noted(request, "rollback", id_, commit=answer.version)
        return Response(answer, status_code=200)

    return [download_model, update_model, roll_back_model]


def _check(form: DownloadRequest) -> None:
    """Raises InvalidRequest."""
    if (form.repo is None) == (form.model is None):
        raise InvalidRequest(
            "Say what is to be downloaded: either 'repo' or 'model'.", param="repo", code="missing_required_parameter"
        )
    given = [name for name in ("file", "quantization", "revision", "name", "backend") if getattr(form, name)]
    if form.file is not None and form.quantization is not None:
        raise InvalidRequest(
            "Give either 'file' or 'quantization': each says which file is meant, and they may differ.",
            param="quantization",
            code="invalid_value",
        )
    if form.model is not None and given:
        raise InvalidRequest(
            f"'{given[0]}' goes with 'repo': a registered model has its own.", param=given[0], code="invalid_value"
        )


def _versions(house: House, id_: str, *, updated: bool) -> ModelVersions:
    entry = house.entries.get(id_)
    known = () if entry is None else entry.versions
    return ModelVersions(
        id=id_,
        updated=updated,
        version=None if entry is None else entry.version,
        versions=[one.commit for one in known],
    )
