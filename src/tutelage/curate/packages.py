"""The error for an optional package of curation that is not there: one sentence and its install line."""

from __future__ import annotations

from tutelage.errors import DependencyError

INSTALL = "pip install 'tutelage[curate]'"


def missing_package(package: str, setting: str, error: ImportError, without: str) -> DependencyError:
    """The error to raise before any row is read.

    Args:
        package: as it is installed.
        setting: what asks for it.
        error: what the import said.
        without: the setting that does without it.
    """
    return DependencyError(
        f"{setting} needs the package {package}, which is not installed",
        where=setting,
        found=str(error),
        expected=package,
        fix=f"{INSTALL}; or go without it: {without}",
    )
