"""What a user names as the thing to be downloaded: ORG/NAME, with a quantization, or as the address of its page."""

from urllib.parse import unquote, urlsplit

from gateway.settings import ConfigError

_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_PAGES = frozenset({"tree", "blob", "resolve"})


def wanted(given: str, endpoint: str | None = None) -> dict[str, str]:
    """The fields of a download that it says: `repo`, and maybe `quantization`, `revision` and `file`.

    endpoint: the address of the hub, where it is another.  Raises ConfigError.
    """
    given = given.strip()
    host = given.partition("/")[0].lower()
    if "://" not in given and host not in _HOSTS:
        return _with_quantization(given)
    try:
        parts = urlsplit(given if "://" in given else f"https://{given}")
        own = urlsplit(endpoint or "").netloc
    except ValueError:
        raise _wrong(given) from None
    if parts.scheme not in ("http", "https") or (parts.hostname not in _HOSTS and parts.netloc != own):
        raise _wrong(given)
    words = [unquote(word) for word in parts.path.strip("/").split("/")]
    if len(words) < 2 or words[0] in ("datasets", "spaces"):
        raise _wrong(given)
    said = _with_quantization("/".join(words[:2]))
    if len(words) > 3 and words[2] in _PAGES:
        said["revision"] = words[3]
        if words[2] != "tree" and len(words) > 4:
            said["file"] = "/".join(words[4:])
    if said.get("revision") == "main":
        del said["revision"]
    return said


def _with_quantization(given: str) -> dict[str, str]:
    repo, colon, kind = given.partition(":")
    return {"repo": repo, "quantization": kind} if colon and kind else {"repo": repo}


def _wrong(given: str) -> ConfigError:
    return ConfigError(f"REPO: '{given[:200]}' is no address of a model on the hub; name it ORG/NAME")
