"""The sentences that the conclusions on servers and clients share."""

from __future__ import annotations

from collections.abc import Sequence

from echo_core.units import format_count
from echo_load.lab.experiment import CannotRunError, Measurements
from echo_load.lab.notation import sentence, written

# The share of connections that is as good as all of them.
ALL = 0.999
# A smaller ratio is noise.
CLEARLY = 1.15


def check_comparable(
    measurements: Measurements, variants: Sequence[str], name: str, fewest: int
) -> None:
    """Check that there is a size at which some variants were all measured.

    Args:
        measurements: what was measured.
        variants: the variants.
        name: name of the measurement that each must have.
        fewest: smallest size that counts.

    Raises:
        CannotRunError: there is none.
    """
    if max(measured_sizes(measurements, variants, name), default=0) < fewest:
        raise CannotRunError(
            f"{', '.join(variants)} could not all be measured with {connections(fewest)} or more"
        )


def connections(size: int) -> str:
    """Write a number of connections."""
    return format_count(size, "connection")


def measured_sizes(
    measurements: Measurements, variants: Sequence[str], name: str = "messages"
) -> list[int]:
    """Return the sizes at which all of some variants were measured, in ascending order.

    Args:
        measurements: what was measured.
        variants: variants.
        name: name of the measurement that each must have.
    """
    measured = {(one.of, one.at) for one in measurements.named(name)}
    sizes = {size for _, size in measured if size is not None}
    return sorted(size for size in sizes if all((one, size) in measured for one in variants))


def joined(*sentences: str) -> str:
    """Join the sentences that are not empty."""
    return " ".join(one for one in sentences if one)


def rankings(measurements: Measurements, size: int) -> str:
    """Rank all variants at a size, by each quantity that counts, the best first."""
    parts = []
    for name in ("messages", "CPU per echo", "memory per connection"):
        found = [one for one in measurements.named(name) if one.at == size]
        ranked = sorted(found, key=lambda one: one.median, reverse=name == "messages")
        values = ", ".join(f"{one.of} {written(one.median, one.unit)}" for one in ranked)
        if values:
            parts.append(f"{name}: {values}")
    return f"With {connections(size)}: {'; '.join(parts)}."


def unserved(measurements: Measurements, size: int) -> str:
    """Name the variants that left connections without a reply."""
    parts = [
        f"{one.of} served {written(one.median, 'share')} of these connections"
        for one in measurements.named("served")
        if one.at == size and one.median < ALL
    ]
    return sentence(f"{'; '.join(parts)}; the others waited in vain") if parts else ""


def unmeasured(measurements: Measurements) -> str:
    """Name what could not be measured."""
    measured = {(one.of, one.at) for one in measurements.named("messages")}
    variants = dict.fromkeys(one.of for one in measurements.named("messages"))
    sizes = sorted({size for _, size in measured if size is not None})
    missing = [
        f"{of} with {size:,}" for size in sizes for of in variants if (of, size) not in measured
    ]
    return f"Could not run here: {', '.join(missing)}." if missing else ""
