"""Lazy imports: a package's names are imported on first use.

A program must handle signals and answer --help before it imports slow modules. This module
therefore imports nothing itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attributes(package: str, modules: "Mapping[str, str]") -> "Callable[[str], object]":
    """Return the `__getattr__` of a package whose names are imported lazily (PEP 562).

    Args:
        package: the name of the package.
        modules: for each public name, the module of the package that defines it.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find
