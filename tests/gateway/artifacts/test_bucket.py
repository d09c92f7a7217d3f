"""Where a bucket is, and the URLs that it signs."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]

from gateway.artifacts.bucket import Bucket, bucket_of
from gateway.keeping import S3

KEY = "0123/ab cd+é~"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "secret/+="}
HEADERS = {"response-content-type": "image/png", "response-content-disposition": 'attachment; filename="a b.png"'}


@pytest.mark.parametrize(
    ("endpoint", "token", "virtual"),
    [
        (None, None, True),
        (None, "session+token/=", False),
        ("http://127.0.0.1:9000", None, False),
        ("https://minio.example:9000", "session+token/=", True),
    ],
)
def test_a_presigned_url_is_what_amazons_own_library_signs(
    endpoint: str | None, token: str | None, virtual: bool
) -> None:
    environ = KEYS | ({} if token is None else {"AWS_SESSION_TOKEN": token})
    if virtual:
        environ["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "true"
    at = None if endpoint is None else endpoint.replace("://", "://things.") if virtual else endpoint
    bucket = bucket_of("s3://things/some/prefix/", S3(endpoint=at, region="eu-central-1"), environ)
    session = Session()
    session.set_credentials("AKIA1", "secret/+=", token)
    style = Config(signature_version="s3v4", s3={"addressing_style": "virtual" if virtual else "path"})
    client = session.create_client("s3", region_name="eu-central-1", endpoint_url=endpoint, config=style)
    wanted = client.generate_presigned_url(
        "get_object",
        Params={
            "Bucket": "things",
            "Key": f"some/prefix/{KEY}",
            "ResponseContentType": HEADERS["response-content-type"],
            "ResponseContentDisposition": HEADERS["response-content-disposition"],
        },
        ExpiresIn=900,
    )
    query = parse_qs(urlsplit(wanted).query)
    now = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signed = bucket.presigned(KEY, HEADERS, expires_s=900, now=now)
    assert signed is not None
    assert urlsplit(signed)[:3] == urlsplit(wanted)[:3]
    assert parse_qs(urlsplit(signed).query) == query


def test_it_is_signed_for_seven_days_at_most() -> None:
    url = bucket_of("s3://things", S3(), KEYS).presigned("a", {}, expires_s=1e9, now=datetime.now(UTC))
    assert url is not None
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["604800"]


def test_without_keys_nothing_is_signed() -> None:
    assert bucket_of("s3://things", S3(), {}).presigned("a", {}, expires_s=9, now=datetime.now(UTC)) is None


def test_the_settings_go_before_the_environment() -> None:
    environ = KEYS | {"AWS_SESSION_TOKEN": "theirs", "AWS_REGION": "us-west-1", "AWS_ENDPOINT_URL": "http://there"}
    own = S3(endpoint="https://here", region="eu-west-1", access_key_id="AKIA2", secret_access_key="own")
    found = bucket_of("s3://things/", own, environ)
    assert found == Bucket(
        name="things",
        prefix="",
        region="eu-west-1",
        endpoint="https://here",
        virtual=False,
        allow_http=False,
        key_id="AKIA2",
        secret="own",
        token=None,
    )
    theirs = bucket_of("s3://things/a/b", S3(), environ)
    assert (theirs.prefix, theirs.region, theirs.endpoint, theirs.key_id, theirs.token) == (
        "a/b",
        "us-west-1",
        "http://there",
        "AKIA1",
        "theirs",
    )


def test_an_endpoint_whose_host_names_the_bucket_is_asked_so() -> None:
    assert bucket_of("s3://things", S3(endpoint="https://things.s3.example"), {}).virtual
    assert not bucket_of("s3://things", S3(endpoint="https://s3.example"), {}).virtual
