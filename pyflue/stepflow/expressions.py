"""Value expressions: where the input of a step and the output of a flow come from.

Compiled once for each flow (`compile_expression`), then asked by the scheduler, over and over as steps finish:
`needs` says which steps must finish before more can be said, `evaluate` says what it comes to. Both look at nothing but
a `State`. What has no references is folded into one value when it is compiled.

Rules: stepflow-ai/stepflow `crates/stepflow-core/src/values/value_expr*.rs`. Two are ours: steps that the default of a
variable refers to are waited for, and bare names as in `paths.py`. The older `$from` is in `legacy.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Final, Protocol, cast

from .exceptions import FlowMalformed, PathInvalid, Place, Problem
from .outcome import ErrorCode, Failed, Outcome, Skipped, Success
from .paths import MISSING, WHOLE, Path, read_path, walk

#: As deep as JSON may be everywhere in PyFlue.
MAX_DEPTH: Final = 100

#: The keys that make an object an expression, in the order in which they are looked for.
SPECIAL_KEYS: Final = ("$literal", "$if", "$coalesce", "$step", "$input", "$variable", "$from")

#: What else each of them looks at; other keys of such an object are ignored.
COMPANIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "$literal": (),
    "$if": ("then", "else"),
    "$coalesce": (),
    "$step": ("path",),
    "$input": (),
    "$variable": ("default",),
    "$from": ("path", "onSkip"),
}

NOTHING: Final[frozenset[str]] = frozenset()
#: An expression of more parts remembers what it has found out about them in a run.
_FEW: Final = 16
_SPECIAL: Final = frozenset(SPECIAL_KEYS)


class State(Protocol):
    """What an expression can see of a run."""

    @property
    def input(self) -> Any:
        """The input of the flow."""
        ...

    @property
    def steps(self) -> dict[str, Outcome]:
        """The steps that have finished, by id and in that order. What a step came to does not change."""
        ...

    @property
    def known(self) -> Container[str]:
        """The ids of all steps of the flow."""
        ...

    @property
    def notes(self) -> dict[Expression, Any]:
        """What large expressions remember of the run, so as not to look at everything again after each step."""
        ...

    def variable(self, name: str) -> Success | None:
        """The value that was given for a variable, else the default of its schema; None if there is neither."""
        ...


class Expression:
    """A compiled expression. Knows nothing of any run; may be used by many at once."""

    __slots__ = ("grows", "is_lazy", "joins", "references", "source")

    def __init__(
        self,
        source: Any,
        references: frozenset[str] = NOTHING,
        *,
        is_lazy: bool = False,
        inner: Sequence[Expression] = (),
    ) -> None:
        """`inner` are the expressions of which one becomes its value."""
        #: The JSON value that it was compiled from.
        self.source = source
        #: The ids of all steps that it mentions, in whatever branch.
        self.references = references
        #: Whether what it needs can depend on what steps come to. If not, `needs` is `references` less what finished.
        self.is_lazy = is_lazy
        #: Whether it puts a value into another one, and whether it puts several together, so that it can come to what
        #: is deeper, and more, than what was there before.
        self.grows = any(one.grows for one in inner)
        self.joins = any(one.joins for one in inner)

    @property
    def is_constant(self) -> bool:
        """Whether it comes to the same in every run."""
        return False

    def needs(self, state: State) -> AbstractSet[str]:
        """The unfinished steps that must finish before more can be said; none if it can be evaluated.

        More may be needed when those have finished: branches are looked at when it is known which one is taken.
        Steps that the flow does not have are not needed, they fail when they are evaluated. Asked again in the same
        run, a large expression names those that it has not named before, and at least one while any is unfinished.
        """
        references = self.references
        if not references:
            return NOTHING
        finished, known = state.steps, state.known
        return {step_id for step_id in references if step_id not in finished and step_id in known} or NOTHING

    def evaluate(self, state: State) -> Outcome:
        """What it comes to. The value may be shared with other evaluations: nobody may change it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source!r}>"


class Constant(Expression):
    """A value that does not depend on anything."""

    __slots__ = ("_outcome", "value")

    def __init__(self, value: Any, source: Any) -> None:
        super().__init__(source)
        self.value = value
        self._outcome = Success(value)

    @property
    def is_constant(self) -> bool:
        return True

    def needs(self, state: State) -> AbstractSet[str]:
        return NOTHING

    def evaluate(self, state: State) -> Outcome:
        return self._outcome


class StepReference(Expression):
    """`$step`: what a step came to, or a part of that."""

    __slots__ = ("_wanted", "path", "step")

    def __init__(self, step: str, path: Path, source: Any, *, when_skipped: Outcome | None = None) -> None:
        super().__init__(source, frozenset((step,)))
        self.step = step
        self.path = path
        #: What takes the place of a skipped step (older documents); None: it is passed on as it is.
        self._wanted = when_skipped

    def needs(self, state: State) -> AbstractSet[str]:
        return NOTHING if self.step in state.steps or self.step not in state.known else self.references

    def evaluate(self, state: State) -> Outcome:
        outcome = state.steps.get(self.step)
        if isinstance(outcome, Success):
            value = outcome.value
            # Of null every part is null.
            if value is None or self.path is WHOLE:
                return outcome
            found = self.path.resolve(value)
            if found is MISSING:
                return Failed(ErrorCode.UNDEFINED_FIELD, f"Path {self.path.shown} not found")
            return Success(found)
        if outcome is None:
            if self.step in state.known:
                return Failed(ErrorCode.INTERNAL, f"Step {self.step} not completed")
            return Failed(ErrorCode.NOT_FOUND, f"Unknown step: {self.step}")
        if isinstance(outcome, Skipped) and self._wanted is not None:
            return self._wanted
        return outcome


class InputReference(Expression):
    """`$input`: the input of the flow, or a part of it."""

    __slots__ = ("path",)

    def __init__(self, path: Path, source: Any) -> None:
        super().__init__(source)
        self.path = path

    def evaluate(self, state: State) -> Outcome:
        if self.path is WHOLE:
            return Success(state.input)
        found = self.path.resolve(state.input)
        if found is MISSING:
            return Failed(ErrorCode.UNDEFINED_FIELD, f"Input path {self.path.shown} not found")
        return Success(found)


class VariableReference(Expression):
    """`$variable`: a variable, or a part of it, or the default if there is none."""

    __slots__ = ("_ways", "default", "path")

    def __init__(self, path: Path, default: Expression | None, source: Any) -> None:
        references = NOTHING if default is None else default.references
        super().__init__(source, references, is_lazy=bool(references), inner=() if default is None else (default,))
        self.path = path
        self.default = default
        # A bare name is looked for as it is first.
        self._ways = tuple(
            (parts[0], parts[1:]) for parts in (path.parts, path.nested) if parts and isinstance(parts[0], str)
        )

    @property
    def name(self) -> str:
        """The variable's name: the first part of the path."""
        return self._ways[-1][0]

    @property
    def names(self) -> tuple[str, ...]:
        """All names that it may be found by: a bare `a.b` is the variable of that name, or else a part of `a`."""
        return tuple(name for name, _ in self._ways)

    def needs(self, state: State) -> AbstractSet[str]:
        if not self.references or self.default is None or self._find(state) is not MISSING:
            return NOTHING
        return self.default.needs(state)

    def evaluate(self, state: State) -> Outcome:
        found = self._find(state)
        if found is not MISSING:
            return Success(found)
        if self.default is not None:
            return self.default.evaluate(state)
        return Failed(ErrorCode.UNDEFINED_FIELD, f"Undefined variable: {self.name}")

    def _find(self, state: State) -> Any:
        for name, rest in self._ways:
            outcome = state.variable(name)
            if outcome is not None:
                return walk(outcome.value, rest)
        return MISSING


class If(Expression):
    """`$if`: one of two, depending on a condition that is false, null or failed, or else true."""

    __slots__ = ("condition", "otherwise", "then")

    def __init__(self, condition: Expression, then: Expression, otherwise: Expression, source: Any) -> None:
        references = condition.references | then.references | otherwise.references
        super().__init__(source, references, is_lazy=bool(references), inner=(then, otherwise))
        self.condition = condition
        self.then = then
        self.otherwise = otherwise

    def needs(self, state: State) -> AbstractSet[str]:
        if not self.references:
            return NOTHING
        missing = self.condition.needs(state)
        if missing:
            return missing
        branch = self._branch(self.condition.evaluate(state))
        return NOTHING if branch is None else branch.needs(state)

    def evaluate(self, state: State) -> Outcome:
        condition = self.condition.evaluate(state)
        branch = self._branch(condition)
        return condition if branch is None else branch.evaluate(state)

    def _branch(self, condition: Outcome) -> Expression | None:
        if isinstance(condition, Skipped):
            return None
        return self.then if is_true(condition) else self.otherwise


def is_true(outcome: Outcome) -> bool:
    """Whether a condition holds: all values but null and false do, a failure does not."""
    return isinstance(outcome, Success) and outcome.value is not None and outcome.value is not False


class Coalesce(Expression):
    """`$coalesce`: the first that is not null; a failure before that ends it, a skipped step does not."""

    __slots__ = ("entries",)

    def __init__(self, entries: tuple[Expression, ...], source: Any) -> None:
        references = NOTHING.union(*(entry.references for entry in entries))
        super().__init__(source, references, is_lazy=bool(references), inner=entries)
        self.entries = entries

    def needs(self, state: State) -> AbstractSet[str]:
        if not self.references:
            return NOTHING
        is_large = len(self.entries) > _FEW
        first: int = state.notes.get(self, 0) if is_large else 0
        for index in range(first, len(self.entries)):
            entry = self.entries[index]
            missing = entry.needs(state)
            if missing:
                if is_large:
                    # Those before it are passed over for good.
                    state.notes[self] = index
                return missing
            if not self._is_passed_over(entry.evaluate(state)):
                break
        return NOTHING

    def evaluate(self, state: State) -> Outcome:
        for entry in self.entries:
            outcome = entry.evaluate(state)
            if not self._is_passed_over(outcome):
                return outcome
        return _NULL

    def _is_passed_over(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Skipped) or (isinstance(outcome, Success) and outcome.value is None)


class _Container(Expression):
    """A list or an object. All of its members are needed."""

    __slots__ = ("_lazy", "_strict")

    def __init__(self, members: Sequence[Expression], source: Any) -> None:
        lazy = tuple(member for member in members if member.is_lazy)
        references = NOTHING.union(*(member.references for member in members))
        super().__init__(source, references, is_lazy=bool(lazy), inner=members)
        variable = sum(not member.is_constant for member in members)
        self.grows = variable > 0
        self.joins = self.joins or variable > 1
        self._lazy = lazy
        self._strict = NOTHING.union(*(member.references for member in members if not member.is_lazy))

    def needs(self, state: State) -> AbstractSet[str]:
        if len(self._lazy) + len(self._strict) > _FEW:
            return self._more_needs(state)
        if not self._lazy:
            return super().needs(state)
        missing = self._strictly_needs(state)
        for member in self._lazy:
            missing |= member.needs(state)
        return missing or NOTHING

    def _strictly_needs(self, state: State) -> set[str]:
        finished, known = state.steps, state.known
        return {step_id for step_id in self._strict if step_id not in finished and step_id in known}

    def _more_needs(self, state: State) -> AbstractSet[str]:
        """As `needs`; members are only asked again when a step has finished that they have named."""
        notes: _Needs | None = state.notes.get(self)
        if notes is None:
            notes = state.notes[self] = _Needs(self._strictly_needs(state))
            new = notes.ask(self._lazy, state) | notes.missing
        else:
            new = notes.ask(notes.concerned(state), state)
        notes.seen = len(state.steps)
        return new or notes.any()


class _Needs:
    """What a large list or object needs in one run, kept up while steps finish."""

    __slots__ = ("_by_step", "missing", "seen")

    def __init__(self, missing: set[str]) -> None:
        #: The steps that have been named and have not finished.
        self.missing = missing
        #: How many steps had finished when it was looked at last.
        self.seen = 0
        #: The members that wait for a step.
        self._by_step: dict[str, set[Expression]] = {}

    def ask(self, members: Iterable[Expression], state: State) -> set[str]:
        """The steps that members need and that have not been named yet."""
        new: set[str] = set()
        for member in members:
            for step_id in member.needs(state):
                self._by_step.setdefault(step_id, set()).add(member)
                if step_id not in self.missing:
                    self.missing.add(step_id)
                    new.add(step_id)
        return new

    def concerned(self, state: State) -> set[Expression]:
        """The members that have waited for one of the steps that have finished since."""
        members: set[Expression] = set()
        for step_id in islice(reversed(state.steps), len(state.steps) - self.seen):
            self.missing.discard(step_id)
            members |= self._by_step.pop(step_id, set())
        return members

    def any(self) -> AbstractSet[str]:
        """One of those that are missing, if there is one."""
        if not self.missing:
            return NOTHING
        # A set gives one away in no time, but is slow to show one after many have left.
        one = self.missing.pop()
        self.missing.add(one)
        return {one}


class Array(_Container):
    """A list of expressions; the first that fails makes it fail."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[Expression, ...], source: Any) -> None:
        super().__init__(items, source)
        self.items = items

    def evaluate(self, state: State) -> Outcome:
        values: list[Any] = []
        for item in self.items:
            outcome = item.evaluate(state)
            if not isinstance(outcome, Success):
                return outcome
            values.append(outcome.value)
        return Success(values)


class Object(_Container):
    """An object of expressions, in the order of the document; the first that fails makes it fail."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[tuple[str, Expression], ...], source: Any) -> None:
        super().__init__([value for _, value in fields], source)
        self.fields = fields

    def evaluate(self, state: State) -> Outcome:
        values: dict[str, Any] = {}
        for key, field in self.fields:
            outcome = field.evaluate(state)
            if not isinstance(outcome, Success):
                return outcome
            values[key] = outcome.value
        return Success(values)


_NULL: Final = Success(None)


def special_key(value: Mapping[str, Any]) -> str | None:
    """The key that makes an object an expression, or None: then it is an object of expressions."""
    if _SPECIAL.isdisjoint(value):
        return None
    return next(key for key in SPECIAL_KEYS if key in value)


def compile_expression(value: Any, *, legacy: bool = False, path: Place = ()) -> Expression:
    """Compile a JSON value. `path` is where it stands in its document, for errors; with `legacy`, `$from` is read.

    Raises:
        FlowMalformed: it cannot be read as an expression; lists all the places.
    """
    compiler = Compiler(legacy=legacy)
    expression = compiler.compile(value, path)
    if compiler.problems:
        raise FlowMalformed(compiler.problems)
    return expression


def literal(value: Any) -> Expression:
    """An expression that is this value, whatever is in it."""
    return Constant(value, {"$literal": value})


class Compiler:
    """Compiles the expressions of one document, and collects what is wrong with them."""

    def __init__(self, *, legacy: bool) -> None:
        self._legacy = legacy
        self.problems: list[Problem] = []
        #: Whether a `$from` was read: the document is one of the older kind.
        self.saw_legacy = False

    def compile(self, value: Any, path: Place) -> Expression:
        """Compile one expression; what is wrong goes to `problems`, with a null in its place."""
        return self._compile(value, path, MAX_DEPTH)

    def _compile(self, value: Any, path: Place, depth: int) -> Expression:
        if isinstance(value, dict):
            if depth == 0:
                return self._too_deep(path)
            fields = cast("dict[str, Any]", value)
            key = special_key(fields)
            return self._object(fields, path, depth) if key is None else self._forms[key](self, fields, path, depth)
        if isinstance(value, list):
            return self._too_deep(path) if depth == 0 else self._array(cast("list[Any]", value), path, depth)
        return Constant(value, value)

    def _object(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        fields = tuple([(key, self._compile(item, (*path, key), depth - 1)) for key, item in value.items()])
        if all(field.is_constant for _, field in fields):
            return Constant({key: cast("Constant", field).value for key, field in fields}, value)
        return Object(fields, value)

    def _array(self, value: list[Any], path: Place, depth: int) -> Expression:
        items = tuple([self._compile(item, (*path, index), depth - 1) for index, item in enumerate(value)])
        if all(item.is_constant for item in items):
            return Constant([cast("Constant", item).value for item in items], value)
        return Array(items, value)

    def _literal(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        return Constant(value["$literal"], value)

    def _if(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        if "then" not in value:
            return self.refuse(path, "`$if` needs a `then`: the value for when the condition holds.")
        condition, then, otherwise = (
            self._compile(value.get(key), (*path, key), depth - 1) for key in ("$if", "then", "else")
        )
        return If(condition, then, otherwise, value)

    def _coalesce(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        path = (*path, "$coalesce")
        entries = value["$coalesce"]
        if not isinstance(entries, list):
            return self.refuse(path, "`$coalesce` needs a list: the first entry that is not null is taken.")
        compiled = [
            self._compile(entry, (*path, index), depth - 2) if depth > 1 else self._too_deep(path)
            for index, entry in enumerate(cast("list[Any]", entries))
        ]
        return Coalesce(tuple(compiled), value)

    def _step(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        step = value["$step"]
        if not isinstance(step, str):
            return self.refuse((*path, "$step"), "`$step` must be a text: the id of a step.")
        where = self.path_of(value.get("path"), (*path, "path"))
        return StepReference(step, where, value)

    def _input(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        return InputReference(self.path_of(value["$input"], (*path, "$input")), value)

    def _variable(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        default = self._compile(value["default"], (*path, "default"), depth - 1) if "default" in value else None
        path = (*path, "$variable")
        before = len(self.problems)
        where = self.path_of(value["$variable"], path)
        if len(self.problems) > before:
            return Constant(None, value)
        if not where.parts or not isinstance(where.parts[0], str):
            message = "`$variable` must start with the name of a variable, such as `name` or `$.name.field`."
            return self.refuse(path, message)
        return VariableReference(where, default, value)

    def _from(self, value: dict[str, Any], path: Place, depth: int) -> Expression:
        from .legacy import compile_from, is_reference

        if self._legacy and is_reference(value):
            self.saw_legacy = True
            return compile_from(self, value, path)
        return self.refuse(
            (*path, "$from"),
            "`$from` is not read here: write `$step`, `$input` or `$variable` for a reference, or put the object into "
            "`$literal` to keep it as it is.",
        )

    _forms: ClassVar[Mapping[str, Callable[[Any, dict[str, Any], Place, int], Expression]]] = {
        "$literal": _literal,
        "$if": _if,
        "$coalesce": _coalesce,
        "$step": _step,
        "$input": _input,
        "$variable": _variable,
        "$from": _from,
    }

    def path_of(self, text: Any, path: Place) -> Path:
        """A path of the document, or the whole value if it cannot be read."""
        try:
            return read_path(text)
        except PathInvalid as error:
            self.refuse(path, f"{error}{'' if str(error).endswith('.') else '.'}")
            return WHOLE

    def refuse(self, path: Place, message: str) -> Expression:
        """Note a problem; a null that stands for what could not be compiled."""
        self.problems.append(Problem(path=path, message=message))
        return Constant(None, None)

    def _too_deep(self, path: Place) -> Expression:
        return self.refuse(path, f"This is nested deeper than {MAX_DEPTH} levels: make it flatter.")


@dataclass(frozen=True, slots=True)
class Form:
    """An expression with a special key, as it stands in a document."""

    path: Place
    key: str
    value: Mapping[str, Any]


def forms(value: Any, path: Place = ()) -> Iterator[Form]:
    """All objects with a special key in an expression, those inside of others and in branches not taken, too.

    Nothing inside of a `$literal` is an expression. For those who look at a document without running it.
    """
    pending: list[tuple[Any, Place]] = [(value, path)]
    while pending:
        value, path = pending.pop()
        inside: list[tuple[Any, Place]] = []
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            key = special_key(fields)
            if key is not None:
                yield Form(path, key, fields)
            inside = [(item, (*path, name)) for name, item in fields.items() if key is None or name in _INSIDE[key]]
        elif isinstance(value, list):
            inside = [(item, (*path, index)) for index, item in enumerate(cast("list[Any]", value))]
        pending.extend(reversed(inside))


#: Under which keys of a special object further expressions are.
_INSIDE: Final[Mapping[str, AbstractSet[str]]] = {
    "$literal": frozenset(),
    "$if": frozenset({"$if", "then", "else"}),
    "$coalesce": frozenset({"$coalesce"}),
    "$step": frozenset(),
    "$input": frozenset(),
    "$variable": frozenset({"default"}),
    "$from": frozenset(),
}


def rewritten(value: Any) -> Any:
    """An expression as it is written back: paths in their one spelling, without keys that mean nothing."""
    if isinstance(value, list):
        return [rewritten(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    key = special_key(fields)
    match key:
        case None:
            return {name: rewritten(item) for name, item in fields.items()}
        case "$literal":
            return {"$literal": fields["$literal"]}
        case "$step":
            path = read_path(fields.get("path"))
            return {"$step": fields["$step"]} if path is WHOLE else {"$step": fields["$step"], "path": path.text}
        case "$input":
            return {"$input": read_path(fields["$input"]).text}
        case "$variable":
            default = {"default": rewritten(fields["default"])} if "default" in fields else {}
            return {"$variable": read_path(fields["$variable"]).text, **default}
        case "$from":
            path = read_path(fields.get("path"))
            on_skip = {"onSkip": fields["onSkip"]} if fields.get("onSkip") is not None else {}
            return {"$from": fields["$from"], **({} if path is WHOLE else {"path": path.text}), **on_skip}
        case _:
            return {name: rewritten(fields[name]) for name in (key, *COMPANIONS[key]) if name in fields}
