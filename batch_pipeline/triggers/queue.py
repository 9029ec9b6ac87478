"""A queue of messages (Amazon SQS, or what speaks its protocol): receive, hide, delete. None is read here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import QueueFailed
from batch_pipeline.locations import shown

if TYPE_CHECKING:
    from batch_pipeline.storage.connection import Connection

RECEIVED_SECONDS = 120
"""For how long a received message is hidden from others: enough to record it, and soon over if that never happens."""
RECORDED_SECONDS = 11 * 3600
"""For how long a recorded one is hidden then; a message can be so for 12 hours at most."""
_BATCH = 10
_NEEDED = "sqs:ReceiveMessage, sqs:ChangeMessageVisibility and sqs:DeleteMessage"
_REGION = re.compile(r"(?:^|//)(?:sqs\.(?P<new>[a-z0-9-]+)|(?P<old>[a-z0-9-]+)\.queue)\.amazonaws\.com")
_ADDRESS = re.compile(r"https?://[^/\s@?#]+/[^\s@?#]+")


@dataclass(frozen=True)
class Message:
    """One message as received. `handle` is what deletes it, until the message is received again."""

    id: str
    handle: str
    body: str


class Queue:
    """One queue, by its URL. Credentials and endpoint (AWS_ENDPOINT_URL_SQS) come from where boto3 takes them.

    Nothing is contacted before it is needed. Every method raises QueueFailed.
    """

    def __init__(self, connection: Connection, url: str, wait_seconds: int = 1) -> None:
        """`wait_seconds`: any has all of the queue's servers asked; with 0 an answer may be empty, the queue not."""
        check_url(url)
        self.url = url
        self._connection = connection
        self._wait_seconds = wait_seconds

    def receive(self) -> list[Message]:
        """At most 10 messages, hidden for RECEIVED_SECONDS; none where the queue has none."""
        with _queue_errors(self.url):
            answer = self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=self._wait_seconds,
                VisibilityTimeout=RECEIVED_SECONDS,
            )
        return [Message(one["MessageId"], one["ReceiptHandle"], one["Body"]) for one in answer.get("Messages", ())]

    def hide(self, handles: Sequence[str]) -> None:
        """Hide messages for RECORDED_SECONDS. One for which that fails comes back sooner, which does no harm."""
        for batch in _batches(handles):
            entries = [{**entry, "VisibilityTimeout": RECORDED_SECONDS} for entry in _entries(batch)]
            with _queue_errors(self.url):
                self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)

    def delete(self, handles: Sequence[str]) -> set[str]:
        """Delete messages and return the handles that are of no more use: deleted, or outdated as it has come again."""
        done: set[str] = set()
        for batch in _batches(handles):
            with _queue_errors(self.url):
                answer = self._client.delete_message_batch(QueueUrl=self.url, Entries=_entries(batch))
            failed = {int(one["Id"]) for one in answer.get("Failed", ()) if not one.get("SenderFault")}
            done.update(handle for index, handle in enumerate(batch) if index not in failed)
        return done

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config

        found = _REGION.search(self.url)
        region = (found["new"] or found["old"]) if found else None
        # As storage in ticks: a queue that hangs must not outlive the tick.
        config = Config(connect_timeout=3, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})
        with _queue_errors(self.url):
            return self._connection.other_client("sqs", region, config)


def check_url(url: str) -> None:
    """Raises QueueFailed for what is no queue's URL, or has a user, password or query: it is shown wherever it is used.

    The message does not repeat what may be secret in it.
    """
    if not _ADDRESS.fullmatch(url):
        raise QueueFailed(
            f"{shown(url)!r} is no queue's URL: write https://sqs.<region>.amazonaws.com/…/<name>, without user, "
            "password or query; the credentials are those of AWS_*"
        )


@contextmanager
def _queue_errors(url: str) -> Iterator[None]:
    """Raise our error for whatever boto3 raises in the block."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NotConnected

    try:
        yield
    except ClientError as error:
        raise QueueFailed(f"queue {url}: {_answered(error.response)}") from error
    except (HTTPClientError, NotConnected) as error:
        raise QueueFailed(f"queue {url}: it can't be reached; check AWS_ENDPOINT_URL_SQS and the network") from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        raise QueueFailed(f"queue {url}: {' '.join(str(error).split())[:300]}") from error


def _answered(response: Any) -> str:
    error, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(error.get("Code", ""))
    if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
        return "there is no such queue; check its URL and region, and AWS_ENDPOINT_URL_SQS"
    if status in (401, 403) or code.startswith(("AccessDenied", "InvalidClientTokenId", "ExpiredToken")):
        return f"the credentials were refused ({code}); they need {_NEEDED}"
    return f"it failed: {code} {' '.join(str(error.get('Message', '')).split())[:200]}".rstrip()


def _batches(handles: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(handles), _BATCH):
        yield handles[start : start + _BATCH]


def _entries(batch: Sequence[str]) -> list[dict[str, Any]]:
    return [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(batch)]
