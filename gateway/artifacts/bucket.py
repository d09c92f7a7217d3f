"""A bucket that speaks S3: where it is, by the settings and else by the environment, and its presigned URLs.

Presigned here and not by obstore, which cannot sign what the answer's headers shall be; so it takes keys that are
known here, and not those that a machine's own role brings.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import Struct

from gateway.keeping import S3

EXPIRES_MAX_S = 604_800
"""No longer is S3's own limit."""


class Bucket(Struct, frozen=True, kw_only=True):
    name: str
    prefix: str
    """What all its keys begin with; empty, or without a slash at either end."""
    region: str
    endpoint: str | None
    """None is Amazon's own."""
    virtual: bool
    """Its name is part of the host's, instead of the path."""
    allow_http: bool
    key_id: str | None
    secret: str | None
    token: str | None
    """Of keys that are good for a while."""

    def config(self) -> dict[str, Any]:
        """For obstore, which takes what is not here from the environment or the machine's role."""
        given = {
            "bucket": self.name,
            "region": self.region,
            "endpoint": self.endpoint,
            "access_key_id": self.key_id,
            "secret_access_key": self.secret,
            "session_token": self.token,
        }
        known = {name: value for name, value in given.items() if value is not None}
        # Not every server knows how to delete several at once.
        return known | {"virtual_hosted_style_request": self.virtual, "disable_bulk_delete": True}

    def presigned(self, key: str, query: Mapping[str, str], *, expires_s: float, now: datetime) -> str | None:
        """A URL that GETs an object; None where the keys are not known here."""
        if self.key_id is None or self.secret is None:
            return None
        base = urlsplit(self._base())
        path = quote("/".join(filter(None, (base.path.strip("/"), self.prefix, key))), safe="/-_.~")
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        fields = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.key_id}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(max(1, min(int(expires_s), EXPIRES_MAX_S))),
            "X-Amz-SignedHeaders": "host",
            **query,
        }
        if self.token is not None:
            fields["X-Amz-Security-Token"] = self.token
        line = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(fields.items()))
        request = f"GET\n/{path}\n{line}\nhost:{base.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signing = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), text):
            signing = hmac.digest(signing, part.encode(), "sha256")
        return f"{base.scheme}://{base.netloc}/{path}?{line}&X-Amz-Signature={signing.hex()}"

    def _base(self) -> str:
        if self.endpoint is None:
            host = f"s3.{self.region}.amazonaws.com"
            return f"https://{self.name}.{host}" if self.virtual else f"https://{host}/{self.name}"
        endpoint = self.endpoint.rstrip("/")
        return endpoint if self.virtual else f"{endpoint}/{self.name}"


def bucket_of(url: str, settings: S3, environ: Mapping[str, str]) -> Bucket:
    """What `s3://BUCKET/PREFIX` is, by the settings and else by what Amazon's tools read from the environment."""

    def either(given: str | None, *names: str) -> str | None:
        return given or next((environ[name] for name in names if environ.get(name)), None)

    name, _, prefix = url.removeprefix("s3://").partition("/")
    endpoint = either(settings.endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    key_id = either(settings.access_key_id, "AWS_ACCESS_KEY_ID")
    wished = environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("1", "true", "yes")
    hosted = endpoint is not None and (urlsplit(endpoint).hostname or "").startswith(f"{name.lower()}.")
    return Bucket(
        name=name,
        prefix=prefix.strip("/"),
        region=either(settings.region, "AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        endpoint=endpoint,
        virtual=hosted or wished,
        allow_http=settings.allow_http or environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"),
        key_id=key_id,
        secret=either(settings.secret_access_key, "AWS_SECRET_ACCESS_KEY"),
        # That of the environment belongs to the environment's keys.
        token=None if settings.access_key_id else either(None, "AWS_SESSION_TOKEN", "AWS_TOKEN"),
    )


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
