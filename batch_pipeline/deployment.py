"""What a process of the deployment works with: settings, and the storage, registry and readers made from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.settings import Settings
from batch_pipeline.storage.timeouts import USUAL, Timeouts

if TYPE_CHECKING:
    from batch_pipeline.models.registry import Registry
    from batch_pipeline.node_specs import NodeSpecs
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage


class Deployment:
    """The deployment as seen from this process. Nothing is opened, and no thread started, before it is used."""

    def __init__(self, settings: Settings, timeouts: Timeouts = USUAL) -> None:
        self.settings = settings
        self.timeouts = timeouts

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ, timeouts: Timeouts = USUAL) -> Deployment:
        """Raises `InvalidSettings`. S3 credentials are read from the process's own environment, by the client."""
        return cls(Settings.from_environment(env), timeouts)

    @cached_property
    def storage(self) -> Storage:
        from batch_pipeline.storage import Storage

        return Storage(allow_local=self.settings.allow_local_files, timeouts=self.timeouts)

    def guarded(self, check: Callable[[], None]) -> Deployment:
        """The same, but that nothing in storage is changed before `check`, which raises where it may not be."""
        from batch_pipeline.storage.guarded import GuardedStorage

        guarded = Deployment(self.settings, self.timeouts)
        guarded.__dict__ |= {**self.__dict__, "storage": GuardedStorage(self.storage, check)}
        return guarded

    @cached_property
    def registry(self) -> Registry:
        """Raises `InvalidSettings` where the deployment names no registry."""
        if self.settings.models is None:
            raise InvalidSettings("BATCH_PIPELINE_MODELS is not set: it names the models' folder, s3://bucket/models/")
        from batch_pipeline.models.registry import Registry

        return Registry(self.storage, self.settings.models, self.settings.cache)

    @cached_property
    def node_specs(self) -> NodeSpecs:
        """Raises `InvalidSettings` for a table that cannot be used."""
        from batch_pipeline.node_specs import load_node_specs

        return load_node_specs(self.settings.node_specs)

    @cached_property
    def share_links(self) -> ShareLinkReader:
        from batch_pipeline.share_links import ShareLinkReader

        return ShareLinkReader(self.settings.share_link_hosts, self.settings.endpoint)

    def __getstate__(self) -> dict[str, object]:
        """Clients and threads stay behind; the other process makes its own."""
        return {"settings": self.settings, "timeouts": self.timeouts}
