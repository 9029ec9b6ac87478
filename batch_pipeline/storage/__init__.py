"""The object store: the only room that knows boto3, obstore and the local disk. Importing it imports none of them."""

from batch_pipeline.storage.objects import ObjectInfo, Stream, Writer
from batch_pipeline.storage.storage import Storage

__all__ = ["ObjectInfo", "Storage", "Stream", "Writer"]
