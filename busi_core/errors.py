"""Every error this package raises on purpose.

* BusiError
  + InvalidImageError      the upload is not an image we accept; ask for another file
  + DatasetError           a data folder or split breaks a rule we rely on; fix the folder
  + ModelUnavailableError  no model in service, or its files fail a check; restore or retrain it
  + ExplanationError       the heat map could not be made; the prediction still stands
  + TrainingError          a training run cannot start or go on; the last checkpoint stays
  + OutputError            a result could not be written; nothing was overwritten
  + AccessDeniedError      only an administrator may do this; sign in, or ask the server's owner
  + PromotionError         a version may not be put into service; the one in service stays
  + JobError               a job cannot be queued, changed or found; the others go on

`ValueError` and `TypeError` are for programmers and may crash; `BusiError` is for people and
is shown to them as a problem and a remedy, never as a traceback.
"""


class BusiError(Exception):
    """Base class. Catch it to handle what we raised on purpose, and nothing else.

    Args:
        problem: One sentence: what is wrong, in the user's words.
        remedy: One sentence: what the user can do about it.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


class InvalidImageError(BusiError):
    """The upload is not an image we accept."""


class DatasetError(BusiError):
    """A data folder or a split breaks a rule that training or evaluation relies on."""


class ModelUnavailableError(BusiError):
    """No model is in service, or its files fail a check."""


class ExplanationError(BusiError):
    """A heat map could not be made; the prediction still stands."""


class TrainingError(BusiError):
    """A training run cannot start or go on."""


class OutputError(BusiError):
    """A result could not be written."""


class AccessDeniedError(BusiError):
    """Only an administrator may do this, and who asks is none (any more)."""


class PromotionError(BusiError):
    """A version may not be put into service; the one in service stays."""


class JobError(BusiError):
    """A job cannot be queued, changed or found."""
