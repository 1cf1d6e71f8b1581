"""The named errors of the package. Each message says what was wrong, in which file, and what to do about it."""


class SynthSegError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""


class ScanError(SynthSegError, ValueError):
    """The input cannot be read or is no three-dimensional scan that could be segmented."""


class ScanWarning(UserWarning):
    """The scan can be used, but something about it was repaired, assumed, or looks wrong."""


class OutputError(SynthSegError, OSError):
    """A result cannot be written where the user asked for it; nothing was left behind."""


class DeviceError(SynthSegError, ValueError):
    """The requested compute device is unknown or absent."""


class WeightsError(SynthSegError, ValueError):
    """The network weights are missing, damaged, or do not belong to this version."""


class OptionError(SynthSegError, ValueError):
    """Options that contradict each other or lie outside their range."""


class JobError(SynthSegError):
    """The child process that segments failed.

    Attributes
    ----------
    kind : str
        The name of the error in the child process (``ScanError``, ``DeviceError``, ...), ``OutOfMemory``,
        ``TorchMissing``, ``Unexpected``; or what became of the process: ``NotStarted``, ``Killed``, ``Crashed``,
        ``Damaged`` (its results).
    details : str
        Its log.
    """

    def __init__(self, kind: str, message: str, details: str = ""):
        super().__init__(message)
        self.kind, self.details = kind, details


class ClusterError(SynthSegError):
    """The Dask scheduler of a batch is unknown, cannot be reached, or was lost; a rerun goes on."""


class Cancelled(SynthSegError):
    """The caller cancelled through its cancel token; nothing was written."""
