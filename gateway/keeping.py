"""What can be configured of what is kept: downloaded models, and what requests leave behind."""

from typing import Annotated, Literal

from msgspec import Meta

from backends.base import Seconds
from gateway.section import Amount, Count, Number, Section

ContextPolicy = Literal["error", "drop_oldest", "summarize"]


class Storage(Section, frozen=True):
    """What downloaded models may take of the disk, and which of them make room for others."""

    model_bytes_max: Amount | None = None
    """None is as much as there is."""
    min_free_bytes: Amount = "1GiB"
    """What is always left free on the disk for everything else."""
    keep: Literal["all", "lru"] = "all"
    """all: a download that does not fit is refused; lru: models that were not used for longest make room for it."""
    unused_days: Count | None = None
    """Downloaded models that nobody has used for so long are removed; None keeps them."""
    partial_days: Count = 7
    """What is left of a download that nobody goes on with is removed after so long."""
    pin: tuple[str, ...] = ()
    """Models that are never removed by themselves, by name or BACKEND/MODEL, globs allowed."""


class Hub(Section, frozen=True):
    """Where models are downloaded from."""

    endpoint: str | None = None
    """None takes $HF_ENDPOINT, else https://huggingface.co; a mirror speaks the same API."""
    token: str | None = None
    """None takes $HF_TOKEN.  Never sent to another host than the endpoint's."""
    downloads: Annotated[int, Meta(ge=1, le=16)] = 2
    """Downloads at a time; the others are queued."""
    bytes_per_s: Amount | None = None
    """What all downloads together may take of the line; None is all of it."""
    stall_s: Seconds = 30.0
    """How long a transfer may bring nothing before it is begun anew, from the byte it had."""
    retries: Number = 5
    """How often in a row a transfer may fail without having brought anything."""
    updates_h: Annotated[float, Meta(ge=0)] = 24.0
    """How often, in hours, it is looked whether downloaded models have a newer revision; 0 is never."""


class S3(Section, frozen=True):
    """A bucket's server; what is None is taken from the environment (AWS_REGION and so on), as its tools do."""

    endpoint: str | None = None
    """None is Amazon's own."""
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    allow_http: bool = False
    """The endpoint may be http: for a server nearby."""


class Artifacts(Section, frozen=True):
    """Pictures, meshes and long texts that requests leave behind."""

    url: str = "file://{data_dir}/artifacts"
    """A folder, or `s3://BUCKET/PREFIX`."""
    s3: S3 = S3()
    presign: bool = False
    """Clients are sent to the bucket itself, by its own signed URLs; else the gateway hands everything out."""
    signing_key: str | None = None
    """Signs the gateway's URLs; None: one is made once and kept in `{data_dir}/secrets.json`."""
    old_signing_keys: tuple[str, ...] = ()
    """What they signed is still believed until it expires."""
    ttl_s: Seconds = 900.0
    """How long a signed URL is good."""
    max_bytes: Amount | None = None
    """What all artifacts together may take; None is as much as there is.  What a key may: limits.*.artifact_bytes."""
    retention_s: Seconds | None = 2_592_000.0
    """How long one is kept that no session holds; None keeps them."""
    grace_s: Seconds = 3600.0
    """How old an object must be that no artifact has, before it is removed: longer than any write takes."""
    text_bytes: Count = 262_144
    """Of a text, in an answer or in a session, from which on it is an artifact as well."""


class Sessions(Section, frozen=True):
    """Conversations that are kept."""

    context: ContextPolicy = "drop_oldest"
    """What is done with one that is too long for its model: refuse the turn, leave the oldest messages out of the
    prompt, or have a summary stand for them; a session may say otherwise, and the answer tells."""
    summary_model: str | None = None
    """Who writes summaries; None is the model of the turn."""
    title_model: str | None = None
    """Who thinks up titles; None: they are made of the first words."""
    unused_days: Count | None = None
    """Sessions that nobody has used for so long are removed; None keeps them."""
    closed_days: Count | None = None
    """The same of closed ones, from their closing on."""


class Requests(Section, frozen=True):
    """What is known of requests that are over."""

    history_days: Count | None = 30
    """How long they are listed; at most as long as usage is kept.  None: as long as that."""
    answers_s: Seconds = 86_400.0
    """How long answers are kept for those who asked with `Prefer: respond-async` or an `Idempotency-Key`."""
    answer_bytes: Amount = "64MiB"
    """Larger answers are not kept."""


class Fetch(Section, frozen=True):
    """Pictures that requests name by URL, where the gateway gets them itself."""

    max_bytes: Amount = "20MiB"
    """Of one picture."""
    request_bytes: Amount = "64MiB"
    """Of all pictures of one request together, artifacts that it names included."""
    timeout_s: Seconds = 15.0
    """For one picture, redirects included."""
    count_max: Annotated[int, Meta(ge=0, le=100)] = 16
    """In one request; 0 fetches none."""
    allow: tuple[str, ...] = ()
    """What an address may begin with, besides those of the public internet (http://10.0.0.5/pictures)."""
