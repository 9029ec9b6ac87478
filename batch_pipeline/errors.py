"""Every error of the project. Nothing here prints, logs or decides an exit status: the command line does."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_OF_INPUT = 500
"""Characters of the message of one input's error: what an input holds is anyone's, and there may be millions."""


def shortened(text: str, most: int) -> str:
    """The text, with its end left out and `…` in its place where it has more than so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


class BatchPipelineError(Exception):
    """Something went wrong that we can name. The message is one line for the user, with no traceback needed."""

    transient: bool = False
    """Whether the same may work if it is tried again."""

    @property
    def message(self) -> str:
        return str(self)


# --- refused before the service starts (exit status 2) -------------------------------------------------------


class Refused(BatchPipelineError):
    """A wrong call, wrong parameters, or anything else refused before the service starts. Nothing was written."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the parameters: `where` is the key or JSON path, `what` says what would be right."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class InvalidParameters(Refused):
    """Parameters that break a rule of the table; all problems at once, in the order of the table."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class InvalidSettings(Refused):
    """A setting of the deployment (an environment variable, the node-spec table) that cannot be used."""


class InvalidLocation(Refused):
    """A text that names no location of a kind that is allowed here."""


class InputMissing(Refused):
    """The input location does not exist, is empty, or its manifest cannot be read."""


class OutputRefused(Refused):
    """The output folder holds something else, overlaps the input, or belongs to another service."""


class ServiceChanged(Refused):
    """The service was run before with something else, and `if_changed` is `refuse`."""


class ServiceLocked(Refused):
    """Another run that is alive owns the output folder."""


class ModelRefused(Refused):
    """The model is unknown, not normal, or has no such request path or mapping."""


class ServiceNotFound(Refused):
    """No service of that name exists."""


class ServiceBusy(Refused):
    """A service that is deploying or running can't be changed or deleted."""


class LimitReached(Refused):
    """The deployment's limit on services or nodes."""


# --- the service failed (exit status 1) ----------------------------------------------------------------------


class ServiceFailed(BatchPipelineError):
    """The service started and could not finish."""


class ThresholdExceeded(ServiceFailed):
    """More inputs failed than `error_threshold` allows. Results and manifests are written all the same."""


class AccountingFailed(ServiceFailed):
    """Storage does not hold what the ledger says; no manifest was written.

    `missing` of `inputs` are not accounted for; `first` has {"line", "source"} of a few, sources as logs may show them.
    """

    def __init__(self, message: str, inputs: int, missing: int, first: tuple[dict[str, int | str | None], ...]) -> None:
        self.inputs, self.missing, self.first = inputs, missing, first
        super().__init__(message)


class NodeFailed(ServiceFailed):
    """A compute node could not do its work at all (model does not load, provider missing, no result can be written)."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(message)


class ServiceMadeOver(ServiceFailed):
    """The output folder was made over from something else since this run began, and is no longer its own."""


class RecordDamaged(ServiceFailed):
    """One of the service's own records in its output folder can't be read. Nothing was done on the strength of it."""


class ScratchFull(ServiceFailed):
    """There is no room on this machine's disk for what a step sets aside."""


class OwnershipLost(ServiceFailed):
    """Another run took over the output folder while this one was not heard of."""


# --- one input failed (recorded, the service goes on) --------------------------------------------------------


class InputFailed(BatchPipelineError):
    """One input has no result. `code` is stable; the message never repeats the source or a signature."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(shortened(message, LONGEST_OF_INPUT))


# --- storage -------------------------------------------------------------------------------------------------


class StorageFailed(BatchPipelineError):
    """The object store did not do what was asked, and may do it later. Every subclass is permanent."""

    transient = True


class StorageRefused(StorageFailed):
    """The store will not do what was asked, however often: the range is none, an argument is refused."""

    transient = False


class ObjectNotFound(StorageFailed):
    """No such object or bucket."""

    transient = False


class AccessDenied(StorageFailed):
    """The store does not let these credentials do that."""

    transient = False


class CredentialsRefused(AccessDenied):
    """The store does not take the credentials at all (unknown, expired): whatever is asked for, nothing will work."""


class StorageFull(StorageFailed):
    """The bucket, or the store, takes no more."""

    transient = False


class NameTaken(StorageFailed):
    """A disk has a folder where the object would stand, or an object where its folder would: a bucket holds both."""

    transient = False

    @property
    def of_result(self) -> InputFailed:
        """What it is for the input whose result was to stand there."""
        what = "a folder of another result stands in its place, or another result in that of its folder"
        return InputFailed("bad_name", f"its result cannot be written: {what}")


class OddName(StorageFailed):
    """A file or a folder on a disk has a name that is not UTF-8: no location can name it, and no text."""

    transient = False


class PreconditionFailed(StorageFailed):
    """The object is not (or no longer) what a conditional read or write named."""

    transient = False


# --- triggers ------------------------------------------------------------------------------------------------


class StateFailed(BatchPipelineError):
    """What a trigger remembers is damaged or gone, and nothing can be done without it that would be safe."""


# --- the queue of notifications ------------------------------------------------------------------------------


class QueueFailed(BatchPipelineError):
    """The queue did not do what was asked: it is gone, refuses the credentials, or can't be reached."""
