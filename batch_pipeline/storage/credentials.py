"""What a client signs with, looked at before anything is sent: what no header can hold ends up in error texts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import CredentialsRefused

if TYPE_CHECKING:
    from boto3.session import Session

_VARIABLES = {
    "access key id": ("AWS_ACCESS_KEY_ID",),
    "secret access key": ("AWS_SECRET_ACCESS_KEY",),
    "session token": ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
}


def usable_credentials(session: Session) -> Any:
    """The session's credentials of this moment (`access_key`, `secret_key`, `token`); None where it has none.

    Raises CredentialsRefused, which names the one that can't be sent and never repeats it, and what boto3 raises.
    """
    credentials = session.get_credentials()
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    for value, (name, variables) in zip(frozen, _VARIABLES.items(), strict=False):
        if value and not _can_be_sent(value):
            which = next((one for one in variables if os.environ.get(one) == value), "")
            raise CredentialsRefused(
                f"{which and f'{which}: '}the {name} for the object store has a character that none can have: "
                "a line end, a blank around it, or one that is not ASCII; set it without"
            )
    return frozen


def _can_be_sent(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()
