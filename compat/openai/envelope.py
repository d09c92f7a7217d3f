"""What all of OpenAI's generating endpoints share: the model's name, streaming, and asking for usage."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.body import kind_of, read
from compat.canonical.error import InvalidRequest
from compat.canonical.request import Dialect, Envelope
from compat.form import read_form


class _Options(Struct):
    include_usage: bool | None = None


_read_options = msgspec.json.Decoder(_Options)
_read_fields = msgspec.json.Decoder(dict[str, Raw])
_write = msgspec.json.Encoder().encode


def envelope(dialect: Dialect, fields: dict[str, Raw], body: bytes) -> Envelope:
    """The envelope of a body whose fields have been checked.  Raises InvalidRequest."""
    model, stream, options = fields.get("model"), fields.get("stream"), fields.get("stream_options")
    streamed = stream is not None and bytes(stream) == b"true"
    asked = False
    if streamed and options is not None and kind_of(options) == "object":
        asked = bool(read(bytes(options), _read_options, "stream_options").include_usage)
    return Envelope(
        dialect=dialect,
        model=(msgspec.json.decode(model) or "") if model is not None else "",
        stream=streamed,
        fields=fields,
        body=body,
        wants_usage=asked or not streamed,
    )


def check_stream_options(asked: Envelope) -> None:
    """Raises InvalidRequest where OpenAI does: they belong to a stream."""
    options = asked.fields.get("stream_options")
    if not asked.stream and options is not None and kind_of(options) != "null":
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def upstream_body(
    envelope: Envelope,
    model: str,
    *,
    asks_usage: bool = True,
    streams: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> bytes:
    """The body that goes to a provider: the client's, under the provider's model name.

    asks_usage: ask for usage in a stream, so that it can be metered.
    streams: ask for a stream whether the client did or not.
    defaults: fields, decoded, for where the client says nothing.
    """
    if envelope.content_type:
        if model == envelope.model:
            return envelope.body
        return read_form(envelope.body, envelope.content_type).with_text("model", model)
    stream = envelope.stream or streams
    asks_usage = asks_usage and stream and (streams or not envelope.wants_usage)
    missing = {name: value for name, value in (defaults or {}).items() if name not in envelope.fields}
    named_once = envelope.body.count(b'"model"') <= 1  # of two, a provider may take the other one
    if model == envelope.model and not asks_usage and stream == envelope.stream and not missing and named_once:
        return envelope.body
    fields = dict(envelope.fields) | {name: Raw(_write(value)) for name, value in missing.items()}
    fields["model"] = Raw(_write(model))
    if stream != envelope.stream:
        fields["stream"] = Raw(b"true")
    if asks_usage:
        options: dict[str, Raw] = {}
        given = fields.get("stream_options")
        if given is not None and kind_of(given) == "object":
            options = _read_fields.decode(given)
        options["include_usage"] = Raw(b"true")
        fields["stream_options"] = Raw(_write(options))
    return _write(fields)
