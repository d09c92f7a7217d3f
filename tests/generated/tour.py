# mypy: ignore-errors
"""A tour of the native API with a client that was generated from the gateway's own OpenAPI document.

python tour.py URL KEY, with the client importable as `pluggably_client`.  Prints each resource that did as it should.
The test type-checks this program without the line above.
"""

import hashlib
import io
import sys

from pluggably_client import AuthenticatedClient
from pluggably_client.api.artifacts import artifact_content, create_artifact, delete_artifact, get_artifact
from pluggably_client.api.artifacts import list_artifacts as list_artifacts_
from pluggably_client.api.jobs import get_job, list_jobs
from pluggably_client.api.keys_and_usage import (
    change_key,
    create_key,
    get_key,
    list_credentials,
    list_keys,
    list_limits,
    list_usage,
    revoke_key,
    rotate_key,
)
from pluggably_client.api.models import clean_storage, get_model, get_schema, get_storage, list_models, list_providers
from pluggably_client.api.native import create_mesh, generate
from pluggably_client.api.operating import health, list_audit, metrics, ready
from pluggably_client.api.requests import get_request, list_requests
from pluggably_client.api.sessions import (
    branch_session,
    change_session,
    close_session,
    create_session,
    delete_session,
    export_session,
    generate_in_session,
    get_session,
    list_messages,
    list_sessions,
    regenerate,
    reset_session,
)
from pluggably_client.models.alive import Alive
from pluggably_client.models.api_error import ApiError
from pluggably_client.models.api_key import ApiKey
from pluggably_client.models.api_key_list import ApiKeyList
from pluggably_client.models.api_key_revoked import ApiKeyRevoked
from pluggably_client.models.artifact_list import ArtifactList
from pluggably_client.models.audit_list import AuditList
from pluggably_client.models.branching import Branching
from pluggably_client.models.cleanup import Cleanup
from pluggably_client.models.cleanup_report import CleanupReport
from pluggably_client.models.credential_list import CredentialList
from pluggably_client.models.deleted_artifact import DeletedArtifact
from pluggably_client.models.deleted_session import DeletedSession
from pluggably_client.models.generate_input import GenerateInput
from pluggably_client.models.generate_parameters import GenerateParameters
from pluggably_client.models.generate_request import GenerateRequest
from pluggably_client.models.generate_request_modality_type_0 import GenerateRequestModalityType0
from pluggably_client.models.generation import Generation
from pluggably_client.models.job_list import JobList
from pluggably_client.models.kept_artifact import KeptArtifact
from pluggably_client.models.key_changes import KeyChanges
from pluggably_client.models.limit_list import LimitList
from pluggably_client.models.listed_model import ListedModel
from pluggably_client.models.mesh_answer import MeshAnswer
from pluggably_client.models.mesh_request import MeshRequest
from pluggably_client.models.message_list import MessageList
from pluggably_client.models.model_list import ModelList
from pluggably_client.models.new_api_key import NewApiKey
from pluggably_client.models.new_key import NewKey
from pluggably_client.models.new_session import NewSession
from pluggably_client.models.provider_list import ProviderList
from pluggably_client.models.readiness import Readiness
from pluggably_client.models.regenerate import Regenerate
from pluggably_client.models.request_list import RequestList
from pluggably_client.models.request_status import RequestStatus
from pluggably_client.models.rotation import Rotation
from pluggably_client.models.session_card import SessionCard
from pluggably_client.models.session_changes import SessionChanges
from pluggably_client.models.session_list import SessionList
from pluggably_client.models.storage_report import StorageReport
from pluggably_client.models.usage_list import UsageList
from pluggably_client.models.usage_row import UsageRow
from pluggably_client.models.usage_sum import UsageSum
from pluggably_client.types import File

Client = AuthenticatedClient


def asked(prompt: str, modality: GenerateRequestModalityType0, parameters: GenerateParameters | None = None):
    return GenerateRequest(
        model="fake/fake", input_=GenerateInput(prompt=prompt), modality=modality, parameters=parameters
    )


def generating(client: Client) -> None:
    whole = generate.sync(client=client, body=asked("Say hello.", GenerateRequestModalityType0.TEXT))
    assert isinstance(whole, Generation)
    assert whole.output.text == "Hello from the fake backend."
    assert whole.usage.output_tokens == 5
    assert whole.selection.attempts == 1


def errors(client: Client) -> None:
    unknown = GenerateRequest(model="nobody/nothing", input_=GenerateInput(prompt="Hi"))
    refused = generate.sync_detailed(client=client, body=unknown)
    assert refused.status_code == 404
    assert isinstance(refused.parsed, ApiError)
    assert refused.parsed.error.code == "model_not_found"
    assert "nobody/nothing" in refused.parsed.error.message
    absent = get_request.sync(client=client, request_id="req_nothing")
    assert isinstance(absent, ApiError)
    stranger = AuthenticatedClient(base_url=client._base_url, token="no-key-of-this-gateway")
    answer = list_models.sync_detailed(client=stranger)
    assert answer.status_code == 401
    assert isinstance(answer.parsed, ApiError)


def artifacts(client: Client) -> None:
    whole = generate.sync(client=client, body=asked("a heron", GenerateRequestModalityType0.IMAGE))
    assert isinstance(whole, Generation)
    [made] = whole.output.artifacts or []
    assert made.id
    card = get_artifact.sync(made.id, client=client)
    assert isinstance(card, KeptArtifact)
    assert (card.mime, card.sha256, card.bytes_) == ("image/png", made.sha256, made.bytes_)
    content = artifact_content.sync(made.id, client=client)
    assert isinstance(content, File)
    data = content.payload.read()
    assert hashlib.sha256(data).hexdigest() == made.sha256
    given = create_artifact.sync(client=client, body=File(payload=io.BytesIO(data)), name="heron.png")
    assert isinstance(given, KeptArtifact)
    assert given.name == "heron.png"
    listed = list_artifacts_.sync(client=client, limit=10)
    assert isinstance(listed, ArtifactList)
    assert {made.id, given.id} <= {one.id for one in listed.data}
    gone = delete_artifact.sync(given.id, client=client)
    assert isinstance(gone, DeletedArtifact)
    assert isinstance(get_artifact.sync(given.id, client=client), ApiError)


def meshes(client: Client) -> None:
    answer = create_mesh.sync(client=client, body=MeshRequest(model="fake/fake", prompt="a thing"))
    assert isinstance(answer, MeshAnswer)
    [file] = answer.data
    assert file.mesh.faces == 4
    assert file.mesh.bounds == [[-1, 0, -1], [1, 2, 1]]
    assert file.id


def sessions(client: Client) -> None:
    session = create_session.sync(client=client, body=NewSession(title="A tour", model="fake/fake"))
    assert isinstance(session, SessionCard)
    said = GenerateRequest(input_=GenerateInput(prompt="Say hello."))
    whole = generate_in_session.sync(session.id, client=client, body=said)
    assert isinstance(whole, Generation)
    assert whole.session_id == session.id
    drawn = generate_in_session.sync(
        session.id, client=client, body=asked("a heron", GenerateRequestModalityType0.IMAGE)
    )
    assert isinstance(drawn, Generation)
    again = regenerate.sync(session.id, client=client, body=Regenerate())
    assert isinstance(again, Generation)
    messages = list_messages.sync(session.id, client=client)
    assert isinstance(messages, MessageList)
    assert [one.role for one in messages.data] == ["user", "assistant"] * 2
    [kept] = messages.data[-1].artifacts or []
    assert kept.mime == "image/png"
    branch = branch_session.sync(session.id, client=client, body=Branching(message_id=messages.data[1].id))
    assert isinstance(branch, SessionCard)
    assert branch.message_count == 2
    changed = change_session.sync(session.id, client=client, body=SessionChanges(title="Renamed"))
    assert isinstance(changed, SessionCard)
    assert changed.title == "Renamed"
    listed = list_sessions.sync(client=client)
    assert isinstance(listed, SessionList)
    assert {session.id, branch.id} <= {one.id for one in listed.sessions}
    assert export_session.sync_detailed(session.id, client=client).status_code == 200
    assert reset_session.sync_detailed(branch.id, client=client).status_code == 200
    closed = close_session.sync(session.id, client=client)
    assert isinstance(closed, SessionCard)
    assert closed.status == "closed"
    refused = generate_in_session.sync(session.id, client=client, body=said)
    assert isinstance(refused, ApiError)
    assert refused.error.code == "conflict"
    assert isinstance(delete_session.sync(session.id, client=client), DeletedSession)
    assert isinstance(get_session.sync(session.id, client=client), ApiError)


def requests(client: Client) -> None:
    listed = list_requests.sync(client=client, limit=5)
    assert isinstance(listed, RequestList)
    assert listed.data
    later = generate.sync_detailed(
        client=client, body=asked("Say hello.", GenerateRequestModalityType0.TEXT), prefer="respond-async"
    )
    assert later.status_code == 202
    assert isinstance(later.parsed, RequestStatus)
    one = get_request.sync(listed.data[0].id, client=client)
    assert isinstance(one, RequestStatus)
    assert one.id == listed.data[0].id


def models(client: Client) -> None:
    listed = list_models.sync(client=client)
    assert isinstance(listed, ModelList)
    assert "fake/fake" in {model.id for model in listed.data}
    one = get_model.sync("fake/fake", client=client)
    assert isinstance(one, ListedModel)
    assert one.backend == "fake"
    schema = get_schema.sync(client=client, model="fake/fake")
    assert schema is not None
    assert not isinstance(schema, ApiError)
    assert schema["parameters"]
    providers = list_providers.sync(client=client)
    assert isinstance(providers, ProviderList)
    assert [one.id for one in providers.data] == ["fake"]


def jobs(client: Client) -> None:
    listed = list_jobs.sync(client=client)
    assert isinstance(listed, JobList)
    assert listed.data == []
    assert isinstance(get_job.sync("job_nothing", client=client), ApiError)


def keys(client: Client) -> None:
    made = create_key.sync(client=client, body=NewKey(name="generated", scopes=["inference"]))
    assert isinstance(made, NewApiKey)
    own = AuthenticatedClient(base_url=client._base_url, token=made.key)
    assert isinstance(list_limits.sync(client=own), LimitList)
    assert isinstance(list_audit.sync(client=own), ApiError), "not its business"
    changed = change_key.sync(made.id, client=client, body=KeyChanges(name="renamed"))
    assert isinstance(changed, ApiKey)
    assert changed.name == "renamed"
    rotated = rotate_key.sync(made.id, client=client, body=Rotation(overlap_s=0))
    assert isinstance(rotated, NewApiKey)
    assert rotated.key != made.key
    gone = revoke_key.sync(made.id, client=client)
    assert isinstance(gone, ApiKeyRevoked)
    card = get_key.sync(made.id, client=client)
    assert isinstance(card, ApiKey)
    assert card.status == "revoked"
    listed = list_keys.sync(client=client, include_revoked=True)
    assert isinstance(listed, ApiKeyList)
    assert made.id in {one.id for one in listed.data}
    assert isinstance(list_credentials.sync(client=client), CredentialList)
    audit = list_audit.sync(client=client, action="key.revoke")
    assert isinstance(audit, AuditList)
    assert audit.data[0].target == made.id


def usage(client: Client) -> None:
    rows = list_usage.sync(client=client)
    assert isinstance(rows, UsageList)
    assert isinstance(rows.data[0], UsageRow)
    sums = list_usage.sync(client=client, group_by="model")
    assert isinstance(sums, UsageList)
    assert isinstance(sums.data[0], UsageSum)
    assert isinstance(sums.totals, UsageSum)
    assert sums.totals.requests >= 3


def storage(client: Client) -> None:
    assert isinstance(get_storage.sync(client=client), StorageReport)
    assert isinstance(clean_storage.sync(client=client, body=Cleanup(dry_run=True)), CleanupReport)


def operating(client: Client) -> None:
    assert isinstance(health.sync(client=client), Alive)
    state = ready.sync(client=client)
    assert isinstance(state, Readiness)
    assert state.checks["backend:fake"] == "ok"
    text = metrics.sync(client=client)
    assert isinstance(text, str)
    assert "pluggably_" in text


TOUR = (generating, errors, artifacts, meshes, sessions, requests, models, jobs, keys, usage, storage, operating)


def main() -> None:
    url, key = sys.argv[1:]
    with AuthenticatedClient(base_url=url, token=key) as client:
        for visit in TOUR:
            visit(client)
            print(visit.__name__)


if __name__ == "__main__":
    main()
