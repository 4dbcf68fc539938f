"""Our `dataclass` beside the standard library's: the same classes, made by both, behave the same."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any, ClassVar, Final

import pytest

import kirostream.dataclass

# mypy knows both decorators as one, so what goes through this table is not typed.
MAKERS: Final[dict[str, Any]] = {"standard": dataclasses.dataclass, "ours": vars(kirostream.dataclass)["dataclass"]}


def point(make: Callable[..., Any], **how: bool) -> Any:
    @make(**how)
    class Point:
        """Somewhere."""

        x: int
        y: float = 0.0
        tags: list[str] = field(default_factory=list, compare=False)
        secret: str = field(default="hidden", repr=False)
        size: int = field(default=7, init=False)
        made: dict[str, int] = field(default_factory=dict, init=False)
        kept: object = field(init=False, compare=False, repr=False)
        shared: ClassVar[int] = 3

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("x is negative")
            object.__setattr__(self, "kept", ("kept", self.x))

        def norm(self) -> float:
            return math.hypot(self.x, self.y)

    return Point


FORMS: Final[tuple[dict[str, bool], ...]] = (
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True},
    {"slots": True},
    {},
)


@pytest.fixture(params=FORMS, ids=lambda how: "+".join(how) or "bare")
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any, dict[str, bool]]:
    """The standard class, ours, and how both were made."""
    return point(MAKERS["standard"], **request.param), point(MAKERS["ours"], **request.param), request.param


def shown(make: Callable[[], object]) -> object:
    """What comes of a call: the value, or the error in words."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        return type(error), str(error)


def test_both_make_the_same_objects(pair: tuple[Any, Any, dict[str, bool]]) -> None:
    theirs, ours, _ = pair
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {"x": 1}),
        ((), {"x": 1, "y": 2.5, "tags": ["a"], "secret": "s"}),
        ((1, 2.5, ["a"], "s"), {}),
        ((1,), {"secret": "s"}),
        ((), {}),
        ((), {"x": -1}),
        ((), {"x": 1, "size": 3}),
        ((), {"x": 1, "nobody": 3}),
        ((1, 2, 3, 4, 5), {}),
    ]
    for positional, named in calls:
        expected = shown(lambda: theirs(*positional, **named))  # noqa: B023 - called at once
        got = shown(lambda: ours(*positional, **named))  # noqa: B023
        if isinstance(expected, tuple):
            assert got == expected, (positional, named)
            continue
        assert repr(got) == repr(expected)
        assert dataclasses.asdict(got) == dataclasses.asdict(expected)  # type: ignore[call-overload]
        assert got.norm() == expected.norm()  # type: ignore[attr-defined]
    assert ours(x=1).tags is not ours(x=1).tags


def test_both_compare_and_hash_by_the_same_fields(pair: tuple[Any, Any, dict[str, bool]]) -> None:
    theirs, ours, how = pair
    for cls in (theirs, ours):
        one = cls(x=1, tags=["not compared"])
        object.__setattr__(one, "made", ())
        other = cls(x=1)
        object.__setattr__(other, "made", ())
        assert one == other
        assert one != cls(x=2)
        assert one != (1, 0.0)
        if how.get("frozen"):
            assert hash(one) == hash(other)
            with pytest.raises(TypeError, match="unhashable"):
                hash(cls(x=1))  # `made` is a dict
        else:
            assert cls.__hash__ is None
    assert theirs(x=1) != ours(x=1)
    nan = math.nan
    assert ours(x=1, y=nan) == ours(x=1, y=nan)


def test_a_frozen_one_refuses_in_the_same_words(pair: tuple[Any, Any, dict[str, bool]]) -> None:
    theirs, ours, how = pair
    if not how.get("frozen"):
        one = ours(x=1)
        one.x = 2
        assert one.x == 2
        return
    for cls, names in ((theirs, ("x", "made")), (ours, ("x", "made", "nobody"))):  # theirs fails at "nobody" in 3.11
        one = cls(x=1)
        for name in names:
            with pytest.raises(FrozenInstanceError, match=f"^cannot assign to field '{name}'$"):
                setattr(one, name, 2)
            with pytest.raises(FrozenInstanceError, match=f"^cannot delete field '{name}'$"):
                delattr(one, name)

    class Open(ours):  # type: ignore[misc, valid-type]
        """No dataclass: it has a ``__dict__``, for what is its own."""

    more = Open(x=1)
    more.nobody = 5
    del more.nobody
    with pytest.raises(FrozenInstanceError):
        more.x = 2


def test_what_the_library_offers_works_on_both(pair: tuple[Any, Any, dict[str, bool]]) -> None:
    theirs, ours, how = pair
    assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]
    assert ours.__match_args__ == theirs.__match_args__ == (() if how.get("kw_only") else ("x", "y", "tags", "secret"))
    assert getattr(ours, "__slots__", None) == getattr(theirs, "__slots__", None)
    assert ours.__doc__ == "Somewhere."
    one = ours(x=1, y=2.0)
    assert dataclasses.replace(one, x=3) == ours(x=3, y=2.0)
    assert dataclasses.is_dataclass(ours)
    assert copy.copy(one) == copy.deepcopy(one) == one
    assert (copy.copy(one).kept, copy.copy(one).tags is one.tags) == (("kept", 1), True)
    hold = inspect.signature(vars(ours)["__init__"]).parameters  # of the real one: an object was made
    assert [(each.name, each.kind) for each in hold.values()] == [
        (each.name, each.kind) for each in inspect.signature(vars(theirs)["__init__"]).parameters.values()
    ]


@MAKERS["ours"](frozen=True, slots=True)
class Pickled:
    """Found by its name."""

    here: int


def test_a_frozen_one_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Pickled(3))) == Pickled(3)  # type: ignore[call-arg]


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_what_a_class_says_itself_stays(make: Any) -> None:
    @make(frozen=True, slots=True)
    class Own:
        x: int

        def __repr__(self) -> str:
            return "mine"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, int)

        def __hash__(self) -> int:
            return 5

    assert (repr(Own(1)), Own(1) == 3, hash(Own(1))) == ("mine", True, 5)  # type: ignore[call-arg]

    @make(frozen=True, slots=True)
    class Compared:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

    assert hash(Compared(1)) == hash(Compared(1))  # type: ignore[call-arg]

    @make(slots=True)
    class Built:
        x: int

        def __init__(self) -> None:
            self.x = 9

    assert Built().x == 9


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_dataclass_of_a_dataclass(make: Any) -> None:
    base = point(make, frozen=True, slots=True)

    @make(frozen=True, slots=True)
    class Solid(base):  # type: ignore[misc, valid-type]
        z: int = 5

    one = Solid(1, 2.0, z=4)
    assert repr(one).endswith("Solid(x=1, y=2.0, tags=[], size=7, made={}, z=4)")
    assert (one.z, one.kept, one.norm()) == (4, ("kept", 1), math.hypot(1, 2))
    assert one == Solid(1, 2.0, z=4)
    assert one != Solid(1, 2.0)
    assert one != base(1, 2.0)


def test_one_that_holds_itself_can_be_shown() -> None:
    cls = point(MAKERS["ours"])
    one = cls(x=1)
    one.tags.append(one)
    assert "..." in repr(one)


def test_nothing_is_compiled_before_the_first_object(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    run = exec

    def watched(source: str, *spaces: Any, **more: Any) -> None:
        compiled.append(source)
        run(source, *spaces, **more)

    monkeypatch.setattr(builtins, "exec", watched)
    cls = point(MAKERS["ours"], frozen=True, slots=True)
    assert compiled == []
    cls(x=1)
    cls(x=2)
    assert [text.partition("(")[0] for text in compiled] == ["def __init__"]


def test_replace_changes_what_is_named_and_nothing_else(pair: tuple[Any, Any, dict[str, bool]]) -> None:
    """Also through ``__post_init__``, and with fields that have no parameter: then it is the library's."""
    _, ours, how = pair
    named = how.get("kw_only", False)
    before = ours(x=1, y=2.0) if named else ours(1, 2.0)
    after = vars(kirostream.dataclass)["replace"](before, x=5)
    assert (after.x, after.y, after.tags, after.kept) == (5, 2.0, before.tags, ("kept", 5))
    assert before.x == 1


def test_replace_of_a_plain_one_copies_by_itself() -> None:
    class Bare:
        one: int
        two: object = None

    pair: Any = MAKERS["ours"](frozen=True, slots=True)(Bare)
    replace = vars(kirostream.dataclass)["replace"]
    shared = object()
    after = replace(pair(1, shared), one=2)
    assert (type(after), after.one, after.two) == (pair, 2, shared)
    assert replace(after) == after
    with pytest.raises(FrozenInstanceError):
        after.one = 3
    with pytest.raises(TypeError):
        replace(after, three=3)
