"""`dataclass`: the standard library's to whoever uses it, and a tenth of the time to make.

The standard one writes up to six methods of each class as source, and compiles every one of them while its module is
imported: about 1 ms a class (Python 3.11). A gateway has over 150 classes, which was half of its start but for Trio's
part. Here all methods but ``__init__`` are closures, and ``__init__`` is compiled for the first object, which of most
classes is never made in most processes.

It is still the standard library that finds the fields and makes the slots. So `fields`, `replace`, `asdict`,
`is_dataclass` and ``match`` work as ever, and type checkers see the standard decorator. A frozen ``__init__`` fills
slots through their descriptors, in two thirds of the time that ``object.__setattr__`` takes.

What nobody uses is not there: ``order``, ``unsafe_hash``, ``init=False``, ``eq=False``, ``weakref_slot``, `InitVar`.
That a frozen class has frozen bases is for the type checker to see.
"""

from __future__ import annotations

import dataclasses
import operator
import reprlib
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any, Final

_UNSET: Final[Any] = type("_Unset", (), {"__repr__": lambda _: "<made anew>"})()
"""Stands in a signature for a default that a factory makes."""


def _dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False, kw_only: bool = False) -> Any:
    """Make a class a dataclass. Methods that it defines itself stay as they are."""

    def make(bare: type) -> Any:
        own = dict(vars(bare))
        bare.__doc__ = bare.__doc__ or bare.__name__  # without one, the standard library asks for a signature
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(bare)
        equals, hashes = _by_value(made)
        methods: dict[str, object] = {"__init__": _first_init(made, frozen), "__repr__": _repr, "__eq__": equals}
        if frozen:
            methods |= {**_freezing(made), "__getstate__": _get_state, "__setstate__": _set_state}
        for name, method in methods.items():
            if name not in own:
                setattr(made, name, method)
        if "__hash__" not in own or (own["__hash__"] is None and "__eq__" in own):  # a class with __eq__ gets a None
            made.__hash__ = hashes if frozen else None
        return made

    return make if cls is None else make(cls)


def _first_init(cls: Any, frozen: bool) -> Callable[..., None]:
    """An ``__init__`` that puts the compiled one in its own place."""

    def first(self: Any, /, *args: Any, **kwargs: Any) -> None:
        cls.__init__ = _compiled_init(cls, frozen)
        cls.__init__(self, *args, **kwargs)

    return first


def _compiled_init(cls: Any, frozen: bool) -> Callable[..., None]:
    """The ``__init__`` that the standard library would have written."""
    namespace: dict[str, Any] = {"_UNSET": _UNSET, "_setattr": object.__setattr__}
    positional: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for field in fields(cls):
        name, value, parameter = field.name, field.name, field.name
        if field.default_factory is not MISSING:
            namespace[f"_new_{name}"] = field.default_factory
            parameter = f"{name}=_UNSET"
            value = f"_new_{name}() if {name} is _UNSET else {name}" if field.init else f"_new_{name}()"
        elif field.default is not MISSING:
            namespace[f"_default_{name}"] = field.default
            parameter = f"{name}=_default_{name}"
            value = name if field.init else f"_default_{name}"
        elif not field.init:
            continue  # __post_init__ sets it
        if field.init:
            (named if field.kw_only else positional).append(parameter)
        if not frozen:
            body.append(f"self.{name} = {value}")
        elif fill := getattr(getattr(cls, name, None), "__set__", None):
            namespace[f"_fill_{name}"] = fill
            body.append(f"_fill_{name}(self, {value})")
        else:
            body.append(f"_setattr(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"]), namespace)  # noqa: S102 - of names alone
    init: Callable[..., None] = namespace["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    return init


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    said = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr)
    return f"{type(self).__qualname__}({said})"


def _by_value(cls: Any) -> tuple[Callable[[Any, object], Any], Callable[[Any], int]]:
    """``__eq__`` and ``__hash__`` over the fields that count."""
    compared = _getter([field.name for field in fields(cls) if field.compare])
    hashed = _getter([field.name for field in fields(cls) if (field.compare if field.hash is None else field.hash)])

    def equals(self: Any, other: object) -> Any:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    def hashes(self: Any) -> int:
        return hash(hashed(self))

    return equals, hashes


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Gives the values of these attributes, always as a tuple: it finds an object equal to itself, NaN or not."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda each: tuple([getattr(each, name) for name in names])


def _freezing(cls: Any) -> dict[str, object]:
    """What refuses to change a field; a subclass that is no dataclass may have attributes of its own."""
    names = frozenset(field.name for field in fields(cls))

    def set_one(self: Any, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_one(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": set_one, "__delattr__": delete_one}


def _get_state(self: Any) -> list[Any]:
    """For `copy` and `pickle`, which else would set fields."""
    return [getattr(self, field.name) for field in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


_SAME: Final[Any] = type("_Same", (), {"__repr__": lambda _: "<as before>"})()
_copiers: dict[type, Callable[..., Any]] = {}


def _replace(each: Any, /, **changes: Any) -> Any:
    """`dataclasses.replace`, by one compiled function a class: a third of the time."""
    copier = _copiers.get(type(each))
    if copier is None:
        copier = _copiers[type(each)] = _compiled_copier(type(each))
    return copier(each, **changes)


def _compiled_copier(cls: Any) -> Callable[..., Any]:
    """Makes a new object, field by field. Where that is not all, the standard library does."""
    names = [field.name for field in fields(cls)]
    fills = {f"_fill_{name}": getattr(getattr(cls, name, None), "__set__", None) for name in names}
    if hasattr(cls, "__post_init__") or not all(fills.values()) or not all(field.init for field in fields(cls)):
        return dataclasses.replace
    namespace: dict[str, Any] = {"_SAME": _SAME, "_new": object.__new__, "_cls": cls, **fills}
    body = [f"_fill_{name}(_made, _self.{name} if {name} is _SAME else {name})" for name in names]
    parameters = ", ".join(["_self, /", *(["*"] if names else []), *(f"{name}=_SAME" for name in names)])
    lines = ["_made = _new(_cls)", *body, "return _made"]
    exec(f"def replace({parameters}):\n " + "\n ".join(lines), namespace)  # noqa: S102 - of names alone
    copier: Callable[..., Any] = namespace["replace"]
    return copier


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
else:
    dataclass = _dataclass
    replace = _replace
