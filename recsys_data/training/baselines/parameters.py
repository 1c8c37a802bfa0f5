"""Parameters of models: frozen, typed, checked when a model is made."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from recsys_data.errors import UserError

Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the parameters of each model."""


Kind = TypeVar("Kind", bound=Parameters)


def checked(name: str, kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Make parameters from values, e.g. those of a command line or a file.

    Raises:
        UserError: there is no such parameter, or a value has the wrong type or makes no sense.
    """
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        known = ", ".join(f"{field} ({getattr(kind(), field)!r})" for field in kind.__struct_fields__) or "none"
        raise UserError(f"Parameters of the model {name}: {error}. Known, with their defaults: {known}.") from None
