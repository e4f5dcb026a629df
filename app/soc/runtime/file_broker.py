"""The embedded stack's broker: kombu's file-system transport, where files appear whole.

Kombu's own creates a file and then fills it. A worker that looks in between takes an empty
message, which is lost and ends the worker; a worker that binds its queue in between drops the
binding of another, whose tasks then vanish.
"""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class FileChannel(filesystem.Channel):
    """Kombu's channel with files that are filled under another name first."""

    def _put(self, *given: Any, **_: Any) -> None:
        queue, message = given
        name = f"{time.time_ns():020}_{uuid.uuid4()}"
        folder = Path(self.data_folder_out)
        draft = folder / name
        draft.write_text(dumps(message), encoding="utf-8")
        draft.rename(folder / f"{name}.{queue}.msg")

    def _queue_bind(self, exchange: str, *arguments: Any) -> None:
        file = self._exchange_file(exchange)
        if not file.exists():
            self.control_folder.mkdir(exist_ok=True)
            draft = file.with_name(str(uuid.uuid4()))
            draft.write_text("[]", encoding="utf-8")
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
            draft.unlink()
        super()._queue_bind(exchange, *arguments)


class FileTransport(filesystem.Transport):
    """Kombu's transport with our channel."""

    Channel = FileChannel
