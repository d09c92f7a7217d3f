"""The half of the hub that describes: /api/…, with the shapes and error headers of the real one."""

import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.hub.content import HubFile
from tests.hub.repository import Commit, HubRepo

if TYPE_CHECKING:
    from tests.hub import Handler, HubServer

_route = re.compile(
    r"/api/models/(?P<id>[^/]+(?:/(?!(?:revision|tree|refs|paths-info|auth-check)(?:/|$))[^/]+)?)"
    r"(?:/(?P<verb>revision|tree|refs|paths-info|auth-check)(?P<rest>/.*)?)?$"
)
_LISTED = {"_id", "id", "modelId", "likes", "downloads", "private", "tags", "pipeline_tag", "library_name", "createdAt"}
"""What a row of a list has unless `full` or `expand` ask for more."""
_ALWAYS = {"_id", "id"}


Lack = Literal["files", "sizes", "hashes", "tree", "auth-check"]


def leave_out(server: "HubServer", *what: Lack) -> None:
    """Have it answer as mirrors do: without files, sizes or hashes in what it says of a repository, or without the
    tree or the question who may read, which are 404 then."""
    vars(server)["left_out"] = frozenset(what)


def _left_out(server: "HubServer") -> frozenset[str]:
    found: frozenset[str] = vars(server).get("left_out", frozenset())
    return found


class Refusal(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def serve(server: "HubServer", handler: "Handler") -> bool:
    """Answer a request for metadata; always does."""
    try:
        _serve(server, handler)
    except Refusal as e:
        handler.error(e.status, e.code, str(e))
    return True


def user_of(server: "HubServer", handler: "Handler") -> str | None:
    """Whose token came; None: none did.  Raises Refusal."""
    token = handler.asked.token
    if token is None:
        return None
    if token not in server.tokens:
        raise Refusal(401, None, "Invalid credentials in Authorization header")
    return server.tokens[token]


def repo_of(server: "HubServer", handler: "Handler", id_: str, user: str | None) -> HubRepo:
    """A repository that this user may know of.  Raises Refusal."""
    repo = server.repos.get(id_)
    if repo is None or not repo.may_see(user):
        # Whoever has no token hears that one is wanted, whether or not there is such a repository.
        if user is None:
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        raise Refusal(404, "RepoNotFound", "Repository not found")
    if repo.disabled:
        raise Refusal(403, None, "Access to this resource is disabled.")
    return repo


def commit_of(repo: HubRepo, revision: str) -> Commit:
    """Raises Refusal."""
    if (commit := repo.at(revision)) is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def check_readable(repo: HubRepo, user: str | None) -> None:
    """Raises Refusal where a licence has to be accepted first."""
    if not repo.may_read(user):
        said = f"Access to model {repo.id} is restricted"
        if user is None:
            raise Refusal(401, "GatedRepo", f"{said}. You must have access to it and be authenticated to access it.")
        raise Refusal(403, "GatedRepo", f"{said} and you are not in the authorized list. Visit its page to ask.")


def _serve(server: "HubServer", handler: "Handler") -> None:
    parts = urlsplit(handler.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    user = user_of(server, handler)
    if parts.path == "/api/whoami-v2":
        if user is None:
            raise Refusal(401, None, "Invalid username or password.")
        handler.answer({"type": "user", "id": user, "name": user, "auth": {"type": "access_token"}})
        return
    if parts.path == "/api/models":
        _list(server, handler, query, user)
        return
    found = _route.match(parts.path)
    if found is None:
        raise Refusal(404, None, "Sorry, we can't find the page you are looking for.")
    repo = repo_of(server, handler, unquote(found["id"]), user)
    rest = (found["rest"] or "").removeprefix("/")
    revision, _, path = rest.partition("/")
    revision = unquote(revision)
    lacks = _left_out(server)
    if found["verb"] in lacks:
        raise Refusal(404, None, "Not Found")
    match found["verb"]:
        case None | "revision":
            told = _described(repo, commit_of(repo, revision or "main"), "blobs" in query)
            for row in told["siblings"]:
                if "sizes" in lacks:
                    row.pop("size", None)
                    row.pop("lfs", None)
                if "hashes" in lacks:
                    row.pop("blobId", None)
                    row.get("lfs", {}).pop("sha256", None)
            if "files" in lacks:
                told.pop("siblings")
            handler.answer(_picked(told, query))
        case "tree":
            _tree(server, handler, repo, revision, unquote(path), query)
        case "refs":
            handler.answer(
                {
                    "branches": [_ref("heads", *one) for one in repo.branches.items()],
                    "converts": [],
                    "tags": [_ref("tags", *one) for one in repo.git_tags.items()],
                }
            )
        case "paths-info":
            commit = commit_of(repo, revision)
            wanted = parse_qs(handler.body.decode()).get("paths", [])
            rows = [_row(commit, commit.files[path]) for path in wanted if path in commit.files]
            folders = [_folder(path) for path in wanted if any(f.startswith(path + "/") for f in commit.files)]
            handler.answer(rows + folders)
        case "auth-check":
            check_readable(repo, user)
            handler.send_body(b"OK")


def _described(repo: HubRepo, commit: Commit, blobs: bool) -> dict[str, Any]:
    owner = repo.id.partition("/")[0]
    told = {
        "_id": commit.id[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": owner,
        "sha": commit.id,
        "lastModified": _time(commit),
        "createdAt": _time(repo.commits[0]),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "tags": repo.tags,
        "pipeline_tag": repo.pipeline_tag,
        "library_name": repo.library,
        "cardData": repo.card or None,
        "gguf": repo.gguf,
        "safetensors": repo.safetensors,
        "usedStorage": sum(file.size for one in repo.commits for file in one.files.values()),
        "spaces": [],
        "siblings": [_sibling(file, blobs) for _, file in sorted(commit.files.items())],
    }
    return {name: one for name, one in told.items() if one is not None}


def _picked(told: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
    """What was asked for, where it was said."""
    wanted = query.get("expand")
    return told if wanted is None else {name: one for name, one in told.items() if name in _ALWAYS | set(wanted)}


def _sibling(file: HubFile, blobs: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        row |= {"blobId": file.blob_id, "size": file.size}
        if file.lfs:
            row["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return row


def _list(server: "HubServer", handler: "Handler", query: dict[str, list[str]], user: str | None) -> None:
    words = query.get("search", [""])[0].lower().split()
    filters = set(query.get("filter", ())) | set(query.get("pipeline_tag", ()))
    rows = [
        repo
        for repo in server.repos.values()
        if repo.may_see(user)
        and all(word in repo.id.lower() for word in words)
        and filters <= {*repo.tags, repo.pipeline_tag, repo.library}
    ]
    match query.get("sort", [""])[0]:
        case "downloads":
            rows.sort(key=lambda repo: (-repo.downloads, repo.id))
        case "likes":
            rows.sort(key=lambda repo: (-repo.likes, repo.id))
        case "lastModified":
            rows.sort(key=lambda repo: repo.commits[-1].at, reverse=True)
    limit = min(int(query.get("limit", [str(server.page_max)])[0]), server.page_max)
    try:
        # The real one's cursor is opaque, and percent signs in it are why it has to be quoted again.
        skip = int(query.get("cursor", ["after=0%3D"])[0].removeprefix("after=").removesuffix("%3D"))
    except ValueError:
        raise Refusal(400, None, "Invalid cursor") from None
    headers = {}
    if skip + limit < len(rows):
        again = {name: given for name, given in query.items() if name != "cursor"} | {
            "cursor": [f"after={skip + limit}%3D"]
        }
        # The real hub names itself, whatever name a mirror was reached by.
        headers["link"] = f'<{server.url}/api/models?{urlencode(again, doseq=True)}>; rel="next"'
    shown = []
    for repo in rows[skip : skip + limit]:
        told = _described(repo, repo.commits[-1], blobs=False)
        if "expand" in query:
            shown.append(_picked(told, query))
        else:
            wide = _LISTED | ({"sha", "lastModified", "gated", "author", "siblings"} if "full" in query else set())
            wide |= {"cardData"} if "cardData" in query else set()
            shown.append({name: one for name, one in told.items() if name in wide})
    handler.answer(shown, headers=headers)


def _tree(
    server: "HubServer", handler: "Handler", repo: HubRepo, revision: str, folder: str, query: dict[str, list[str]]
) -> None:
    commit = commit_of(repo, revision)
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    inside = {path: file for path, file in sorted(commit.files.items()) if path.startswith(prefix)}
    if not inside and prefix:
        raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
    expand = query.get("expand", ["false"])[0].lower() in ("true", "1")
    for path, file in inside.items():
        steps = path.removeprefix(prefix).split("/")
        for deep in range(1, len(steps) if recursive else min(2, len(steps))):
            name = prefix + "/".join(steps[:deep])
            if name not in seen:
                seen.add(name)
                rows.append(_folder(name))
        if recursive or len(steps) == 1:
            rows.append(_row(commit, file, expand=expand))
    limit = min(int(query.get("limit", [str(server.page_max)])[0]), server.page_max)
    skip = int(query.get("cursor", ["0"])[0])
    headers = {}
    if skip + limit < len(rows):
        again = {name: given for name, given in query.items() if name != "cursor"} | {"cursor": [str(skip + limit)]}
        path = f"{server.url}{urlsplit(handler.path).path}"
        headers["link"] = f'<{path}?{urlencode(again, doseq=True, quote_via=quote)}>; rel="next"'
    handler.answer(rows[skip : skip + limit], headers=headers)


def _row(commit: Commit, file: HubFile, *, expand: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": file.blob_id, "size": file.size, "path": file.path}
    if file.lfs:
        row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    if expand:
        row["lastCommit"] = {"id": commit.id, "title": commit.title, "date": _time(commit)}
        row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}


def _ref(kind: str, name: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _time(commit: Commit) -> str:
    return commit.at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
