"""Uploads of model folders to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in __all__

from sinkablate.errors import UserError, first_line

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def require_login(repository: str) -> None:
    """Check that a repository can be named and that the hub can be reached with a login, before anything is written.

    Raises:
        UserError: One of these is not the case.
    """
    key = f"push_to_hub={repository}"
    if repository.count("/") != 1:
        raise UserError(f"{key}: not the name of a repository; write USER/NAME")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{key}: not the name of a repository ({first_line(error)})") from None
    try:
        HfApi().whoami()
    except Exception as error:
        raise _refusal(key, error) from None


def upload(folder: Path, files: list[str], repository: str, *, private: bool) -> str:
    """Upload the files of a folder, and create the repository if it does not exist.

    Returns:
        The address of the repository.

    Raises:
        UserError: The hub cannot be reached or refuses the upload.
    """
    api = HfApi(library_name="sinkablate")
    try:
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=files, commit_message="Export from sinkablate"
        )
    except Exception as error:
        refusal = _refusal(f"push_to_hub={repository}", error)
        raise UserError(
            f"{refusal}; {folder} is complete, so that the upload can be repeated with --overwrite"
        ) from None
    return str(address)


def _refusal(key: str, error: Exception) -> UserError:
    """Describe in one line what huggingface_hub or its HTTP client raised.

    Args:
        key: The option, with which the message starts.
        error: The exception. Those of the HTTP client belong to a library that depends on huggingface_hub's version.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
        return UserError(f"{key}: not logged in, or without the right to write there; {LOGIN}")
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(f"{key}: HF_HUB_OFFLINE forbids the upload; unset it, or leave --push_to_hub out")
    if isinstance(error, HfHubHTTPError):
        return UserError(f"{key}: the hub refused the upload ({first_line(error)})")
    return UserError(f"{key}: the hub cannot be reached ({type(error).__name__}: {first_line(error)})")
