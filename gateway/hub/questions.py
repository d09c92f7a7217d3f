"""The requests that are made of a hub, through the session of `huggingface_hub`; all of them block.

Of `{endpoint}/api/models/{id}` and the like the library's own readers ask for fields that mirrors leave out, and lists
are followed to wherever the answer says, with the token: hence both are done here.
"""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from msgspec.structs import replace

from compat.canonical.error import BadResponse
from gateway.hub.reading import FILES_MAX, is_large, row_of
from gateway.hub.repo import RepoFile

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub import HfApi

UNKNOWN = (404, 405, 501)
"""How a mirror answers a question that it does not know."""
_PAGES_MAX = 200
_HOPS_MAX = 5
_hex = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}").fullmatch


def headers_of(api: "HfApi") -> dict[str, str]:
    from huggingface_hub.utils._headers import build_hf_headers

    return build_hf_headers(token=api.token, headers=api.headers)


def get(api: "HfApi", address: str, query: dict[str, Any] | None = None) -> "Response":
    """Raises what the library raises."""
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    response = get_session().get(address, params=query or {}, headers=headers_of(api))
    hf_raise_for_status(response)
    return response


def described(api: "HfApi", id_: str, revision: str | None) -> dict[str, Any]:
    """What the hub says of a repository."""
    at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
    said = get(api, f"{api.endpoint}/api/models/{id_}{at}", {"blobs": "true"}).json()
    if not isinstance(said, dict):
        raise BadResponse("The model hub describes the repository in a way that cannot be used.")
    return {"id": said.get("modelId")} | said


def tree(api: "HfApi", id_: str, commit: str) -> dict[str, RepoFile]:
    """The repository's files, with what the hub's list of them says; none where it has no such list."""
    from huggingface_hub.errors import HfHubHTTPError

    found: dict[str, RepoFile] = {}
    query: dict[str, Any] = {"recursive": "true"}
    address = f"{api.endpoint}/api/models/{id_}/tree/{quote(commit, safe='')}"
    for _ in range(_PAGES_MAX):
        try:
            response = get(api, address, query)
        except HfHubHTTPError as e:
            # Where it is refused, so are the files: that is found out about them.
            if e.response is not None and e.response.status_code in (*UNKNOWN, 401, 403):
                return found
            raise
        rows = response.json()
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and row.get("type", "file") == "file":
                file = row_of(row)
                found[file.path] = file
        # Only the cursor of the address is taken: what asks next is asked of the endpoint.
        cursor = parse_qs(urlsplit(response.links.get("next", {}).get("url", "")).query).get("cursor")
        if not cursor or len(found) > FILES_MAX:
            break
        query = query | {"cursor": cursor[0]}
    return found


def may_read(api: "HfApi", id_: str) -> bool:
    """Whether the hub says so; False: it does not know the question.  Raises where it says no."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get(api, f"{api.endpoint}/api/models/{id_}/auth-check")
    except HfHubHTTPError as e:
        if e.response is not None and e.response.status_code in UNKNOWN:
            return False
        raise
    return True


def measured(api: "HfApi", address: str, file: RepoFile) -> RepoFile:
    """The file with the size and the hash that the hub's headers tell of it, as far as they do."""
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    session, headers, etag = get_session(), headers_of(api), ""
    home = urlsplit(address)
    for _ in range(_HOPS_MAX):
        response = session.head(address, headers=headers, follow_redirects=False)
        hf_raise_for_status(response)
        told = response.headers
        etag = _plain(told.get("x-linked-etag")) or etag
        if (linked := told.get("x-linked-size")) is not None:
            return _with(file, linked, etag or _plain(told.get("etag")))
        if not response.is_redirect:
            packed = told.get("content-encoding", "identity").strip().lower() not in ("", "identity")
            return _with(file, None if packed else told.get("content-length"), etag or _own_etag(told))
        address = urljoin(address, told.get("location", ""))
        there = urlsplit(address)
        if (there.scheme, there.netloc) != (home.scheme, home.netloc):
            # Another's host gets no token, and its ETag is that of its own storage.
            headers = {name: text for name, text in headers.items() if name.lower() != "authorization"}
            final = session.head(address, headers=headers)
            size = final.headers.get("content-length") if final.status_code == 200 else None
            return _with(file, size, etag or _own_etag(told))
    return file


def _plain(etag: str | None) -> str:
    return (etag or "").strip().removeprefix("W/").strip('"').lower()


def _own_etag(told: Any) -> str:
    etag = _plain(told.get("etag"))
    # The hash of Xet is as long as the one of the contents, and is another.
    return "" if etag == _plain(told.get("x-xet-hash")) else etag


def _with(file: RepoFile, length: str | None, etag: str) -> RepoFile:
    """Where both the hub's list and its headers say something, the list is right."""
    if not file.sized and length is not None and length.isascii() and length.isdecimal() and len(length) < 16:
        size = int(length)
        if size or not is_large(file):
            file = replace(file, size_bytes=size, sized=True)
    if file.sha256 is None and file.blob is None and _hex(etag):
        if len(etag) == 64:
            return replace(file, sha256=etag)
        # Git's hash of what git does not keep itself is that of a pointer to it.
        if not is_large(file):
            return replace(file, blob=etag)
    return file
