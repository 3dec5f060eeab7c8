"""Packages whose names are imported when they are asked for.

A program has to be ready for signals, and to answer --help, before it imports what takes long. So
this imports nothing itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attributes(package: str, modules: "Mapping[str, str]") -> "Callable[[str], object]":
    """Return what a package has as `__getattr__` (PEP 562).

    Args:
        package: its name.
        modules: the module in it, by each name that it offers.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find
