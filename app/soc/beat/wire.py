"""A message as it stands on the wire, with blanks for what differs from run to run.

Writing the frames of a message (AMQP 0-9-1, sections 2.3.5 and 4.2) costs py-amqp a call for each
header; here it is done once for each schedule. The blanks have the length of what fills them.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import pack

import amqp
from amqp.serialization import dumps

from soc.beat import templates
from soc.beat.rows import Message
from soc.beat.timing import as_datetime

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_OVERHEAD = 8
"""Bytes of a frame around its payload."""

_ID = str(uuid.uuid4())
_DUE = str(uuid.uuid4())[:32]
_EXPIRES = str(uuid.uuid4())[:32]
_ID_BYTES, _DUE_BYTES, _EXPIRES_BYTES = _ID.encode(), _DUE.encode(), _EXPIRES.encode()


@dataclass(slots=True)
class Image:
    """The frames of a message on one channel."""

    data: bytes
    channel_id: int
    lifetime: timedelta | None

    def filled(self, task_id: str, due: int, now: datetime) -> bytes:
        """Return the frames of one run; ``now`` bears the zone in which expiry is written."""
        data = self.data.replace(_ID_BYTES, task_id.encode())
        data = data.replace(_DUE_BYTES, _iso(as_datetime(due)))
        if self.lifetime is None:
            return data
        expiry = (now.astimezone(UTC) + self.lifetime).astimezone(now.tzinfo)
        return data.replace(_EXPIRES_BYTES, _iso(expiry))


def _iso(at: datetime) -> bytes:
    return at.isoformat(timespec="microseconds").encode()


def image(channel: amqp.Channel, template: templates.Template, message: Message) -> Image | None:
    """Return a template's image, None if a run's message has not always the same length."""
    if message.expires is not None:
        return None
    headers = template.headers | {"id": _ID, "root_id": _ID, templates.DUE_HEADER: _DUE}
    if headers["expires"]:
        headers["expires"] = _EXPIRES
    content = channel.prepare_message(
        template.body,
        template.priority,
        template.content_type,
        template.content_encoding,
        headers,
        template.properties | {"correlation_id": _ID},
    )
    body = template.body.encode() if isinstance(template.body, str) else template.body
    class_id, method_id = amqp.spec.Basic.Publish
    options = template.publish
    arguments = (0, options["exchange"], options["routing_key"], options["mandatory"], False)
    properties = content._serialize_properties()
    payloads = [
        (_METHOD, pack(">HH", class_id, method_id) + dumps("Bssbb", arguments)),
        (_HEADER, pack(">HHQ", class_id, 0, len(body)) + properties),
        (_BODY, body),
    ]
    if any(len(payload) > channel.connection.frame_max - _OVERHEAD for _, payload in payloads):
        return None
    number = channel.channel_id
    data = b"".join(
        pack(">BHI", kind, number, len(payload)) + payload + _END for kind, payload in payloads
    )
    seconds = message.expire_seconds
    return Image(data, number, timedelta(seconds=seconds) if seconds else None)
