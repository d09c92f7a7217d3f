"""The one place where a request's credential is taken from it, in any of its forms."""

from collections.abc import Iterable

from compat.canonical.error import InvalidRequest, Unauthenticated

Headers = Iterable[tuple[bytes, bytes]]
LENGTH_MAX = 8192
"""Characters of a credential; tokens with many claims have a few thousand."""
_FORMS = (b"authorization", b"x-api-key", b"api-key")


def credential(headers: Headers) -> str | None:
    """The one credential a request carries; None when it has none.

    Raises InvalidRequest when it carries two that differ, Unauthenticated when it is not a bearer token.
    """
    found: str | None = None
    for name, value in headers:
        if name not in _FORMS:
            continue
        text = value.decode("latin-1").strip()
        if not text:
            continue  # some clients send each of them, and fill one
        if name == b"authorization":
            scheme, _, text = text.partition(" ")
            text = text.strip()
            if scheme.lower() != "bearer" or not text:
                raise Unauthenticated("The Authorization header must be 'Bearer' and an API key.")
        if found is not None and found != text:
            raise InvalidRequest("The request carries two different API keys; send one.")
        found = text
    if found is not None and len(found) > LENGTH_MAX:
        raise Unauthenticated(f"The credential is longer than {LENGTH_MAX} characters.")
    return found


def is_token(text: str) -> bool:
    """Whether a credential has the shape of a JSON Web Token, which no key has."""
    return text.startswith("eyJ") and text.count(".") == 2
