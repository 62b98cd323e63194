"""What to tell a user when a model cannot be fetched from the Hugging Face hub: one line for each kind of error."""

from collections.abc import Iterator

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

OFFLINE = (
    "no network and not in the cache of the Hugging Face hub; run the command once with a network and without "
    "HF_HUB_OFFLINE, or name a local folder or a file"
)
PROBLEMS: dict[type[BaseException], str] = {
    GatedRepoError: "access is restricted: accept the terms on its page, then log in (hf auth login)",
    RepositoryNotFoundError: "there is no such repository, or it is private: check the name, or log in (hf auth login)",
    RevisionNotFoundError: "the repository has no such revision",
    OfflineModeIsEnabled: OFFLINE,
    LocalEntryNotFoundError: OFFLINE,
    EntryNotFoundError: "the repository does not contain the files of such a model",
    HFValidationError: "not the name of a repository, which has the form USER/NAME",
    HfHubHTTPError: "the hub answered with an error; try again later, or name a local folder or a file",
    ConnectionError: OFFLINE,
}
"""Class of an error -> what happened and what to do; the first class that matches is used."""


def hub_problem(error: BaseException) -> str:
    """Describe an error of huggingface_hub, or one that such an error caused; empty for any other error."""
    causes = list(_causes(error))
    return next((sentence for kind, sentence in PROBLEMS.items() for cause in causes if isinstance(cause, kind)), "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
