"""Names of axes: those that Atlas knows, and what files and people call them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidInput, listed

ORDER = ("n", "c", "z", "y", "x", "t", "items", "features")
"""Names of axes that Atlas knows, in the order in which arrays are kept."""

_WORDS = {
    "n": "n sample samples batch case cases record records event events ensemble member members "
    "realization realisation run runs obs observation observations instance instances index "
    "idx date dates datetime day days month months year years hour hours forecast_time "
    "valid_time initial_time init_time trajectory trajectories",
    "c": "c ch channel channels variable variables var vars band bands",
    "z": "z lev level levels depth plev pressure pressure_level isobaric altitude height_level "
    "model_level layer layers bottom_top",
    "y": "y lat latitude latitudes row rows height h south_north nav_lat rlat northing ny j",
    "x": "x lon long longitude longitudes col cols column columns width w west_east nav_lon rlon "
    "easting nx i",
    "items": "items item particle particles point points node nodes body bodies atom atoms "
    "constituent constituents agent agents vertex vertices m",
    "features": "features feature f component components coordinate coordinates coord coords dim "
    "dims dimension vector xyz",
    "t": "step steps frame frames time_step timestep timesteps",
}
_KNOWN = {word: name for name, words in _WORDS.items() for word in words.split()}
_TIMES = {"t", "time", "times"}
"""Samples, unless another axis has these: then the steps of trajectories."""


def known_axes(names: Sequence[str | None]) -> tuple[str, ...] | None:
    """Translate the names of axes that a file or a user gives.

    Args:
        names: The names, in order; None for an axis without a name.

    Returns:
        Names of :data:`ORDER`, or None if one of the names is not known or two mean the same.

    >>> known_axes(["time", "lat", "lon"])
    ('n', 'y', 'x')
    >>> known_axes(["sample", "time", "features"])
    ('n', 't', 'features')
    >>> known_axes(["time", "lat", "spam"])
    """
    words = [name.strip().lower() for name in names if name is not None]
    if len(words) < len(names):
        return None
    samples = any(_KNOWN.get(word) == "n" for word in words)
    found = [("t" if samples else "n") if w in _TIMES else _KNOWN.get(w) for w in words]
    if "n" not in found and "t" in found and "features" in found:
        found[found.index("t")] = "n"
    if None in found or len(set(found)) < len(found):
        return None
    return tuple(name for name in found if name is not None)


def translate_axes(text: str, field: str) -> str:
    """Translate the names of axes that a user gives with commas between.

    Args:
        text: The names; names of :data:`ORDER` stay.
        field: Dotted path of the names in the request, for the error.

    Returns:
        Names of :data:`ORDER`, with commas. Names that are not known stay.

    Raises:
        InvalidInput: Two names mean the same axis.

    >>> translate_axes("time, lat, lon", "axes")
    'n,y,x'
    """
    names = [name.strip() for name in text.split(",")]
    if set(names) <= set(ORDER):
        return ",".join(names)
    known = known_axes(names)
    if known is not None:
        return ",".join(known)
    each = [known_axes([name]) or (name,) for name in names]
    for i, found in enumerate(each):
        same = [name for name, other in zip(names, each, strict=True) if other == found]
        if len(same) > 1 and found[0] in ORDER and found[0] != "n":
            raise InvalidInput(
                f"{' and '.join(same)} of the axes {text!r} are both {found[0]}",
                field,
                f"different axes: {listed(ORDER)}",
            )
        del i
    return ",".join(found[0] for found in each)
