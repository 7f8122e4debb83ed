"""Every error this package raises on purpose.

Live2DiffError
├── ConfigError          a setting is out of range or contradicts another
├── PromptError          a prompt names nothing that the model knows
├── FrameSizeError       a picture size that the network cannot take
├── StreamClosed         a session was used after close()
├── StreamNotReady       push() before warmup()
├── MemoryBudgetError    what was asked for does not fit into the device's free memory
├── WeightsError         a weights file cannot be used
│   ├── WeightsMissingError  there is no such file here
│   ├── WeightsFormatError   it is not a file of the expected format, or it is damaged
│   ├── WeightsCodeError     it is a pickle that would run code
│   ├── WeightsKindError     it is a sound file of something else: another base, another network
│   ├── WeightsKeyError      keys are missing, unexpected or of another shape
│   └── WeightsValueError    it holds NaN or infinite values
├── ProtocolError        a client's message cannot be taken (live/protocol.py, with its codes)
└── MediaError           a video cannot be read or written
    ├── SourceError
    └── SinkError

A message says what was expected, what was got and what to do.
"""


class Live2DiffError(Exception):
    """Base of all errors of this package."""


class ConfigError(Live2DiffError, ValueError):
    """A setting is out of range or contradicts another one."""


class PromptError(Live2DiffError, ValueError):
    """A prompt names nothing that the loaded model knows."""


class FrameSizeError(Live2DiffError, ValueError):
    """A picture size that the network cannot take."""


class StreamClosed(Live2DiffError, RuntimeError):
    """A session was used after it was closed."""


class StreamNotReady(Live2DiffError, RuntimeError):
    """A session got a frame before its warm-up."""


class MemoryBudgetError(Live2DiffError):
    """What was asked for does not fit into the device's free memory."""


class WeightsError(Live2DiffError):
    """A weights file cannot be used."""


class WeightsMissingError(WeightsError):
    """There is no such file on this machine."""


class WeightsFormatError(WeightsError):
    """A file is not of the format that was expected, or it is damaged."""


class WeightsCodeError(WeightsError):
    """A pickle that would run code; nothing of it was run."""


class WeightsKindError(WeightsError):
    """A sound file of something else than what was expected."""


class WeightsKeyError(WeightsError):
    """Keys are missing, unexpected, or a tensor has another shape."""


class WeightsValueError(WeightsError):
    """A tensor holds NaN or infinite values."""


class MediaError(Live2DiffError):
    """A video cannot be read or written."""


class SourceError(MediaError):
    """A source cannot be opened, or broke while it was read."""


class SinkError(MediaError):
    """A sink cannot be opened, or refused a frame."""
