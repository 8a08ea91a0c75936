"""Sends one file with tuspy, as told by a JSON object in the first argument, and says as JSON what came of it."""

import json
import sys

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage

options = json.loads(sys.argv[1])
endpoint = options.pop("endpoint")
stop_at = options.pop("stop_at", None)
storage = options.pop("storage", None)
if storage:
    options |= {"store_url": True, "url_storage": FileStorage(storage)}

uploader = TusClient(endpoint).uploader(**options)
resumed_at = uploader.offset
error = None
try:
    uploader.upload(stop_at)
except (TusCommunicationError, TusUploadFailed) as failed:
    error = str(failed)
print(
    json.dumps(
        {
            "url": uploader.url,
            "id": uploader.request.response_headers.get("upload-id"),
            "resumed_at": resumed_at,
            "offset": uploader.offset,
            "error": error,
        }
    )
)
