"""Lazy imports: a package's names are imported on first use.

A program must handle signals and answer --help before it imports slow modules. This module
therefore imports nothing itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def installation_of(extra: str) -> str:
    """Return how to install the packages of an extra; the project is in no package index."""
    return f"install it with pip install '.[{extra}]' in a checkout of echoswarm"


def attributes(
    package: str, modules: "Mapping[str, str]", *, extra: str | None = None
) -> "Callable[[str], object]":
    """Return the `__getattr__` of a package whose names are imported lazily (PEP 562).

    Args:
        package: the name of the package.
        modules: for each public name, the module of the package that defines it.
        extra: the optional dependency group that the modules need; None for none.

    Raises:
        ModuleNotFoundError: when a name is used, a package that it needs is not installed.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            module = import_module(f"{package}.{modules[name]}")
        except ModuleNotFoundError as error:
            if extra is None or error.name is None or error.name.startswith("echo_"):
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs the package {error.name!r}, which is missing; "
                f"{installation_of(extra)}",
                name=error.name,
            ) from error
        return getattr(module, name)

    return find
