"""Unit tests taken apart, so that the right values never enter the process of the program under test.

``assert f(3) == 9`` becomes ``_report(0, f(3))`` for the program's process, and ``_values[0] == 9`` for another one, in
which no line of the program runs.  What stays with the program: calls, names and whatever is made of them.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Computed on the judge's side from values of the program, because tests put the right value next to them.
_JUDGED = {"abs", "round", "isclose", "math.isclose"}
_MAKERS = {"bytes", "complex", "dict", "float", "frozenset", "list", "range", "set", "sorted", "tuple"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_OPEN = (ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Tuple, ast.List, ast.Set, ast.Dict)


@dataclass(frozen=True, slots=True)
class Assertions:
    """One unit test: statements with assertions.

    Args:
        source: As a data set has it, such as ``assert f(1) == 2``.

    Attributes:
        program: What the process of the program runs, with ``_report(index, *values)`` for each assertion.
        checks: For each assertion an expression of ``_values``, which has to be true.
        required: Indices of assertions that have to be reached.
        needs_report: Whether some assertion has to be reached, all of them being inside functions.

    Raises:
        ValueError: The text is no Python, or holds no assertion.
    """

    source: str
    program: str = field(init=False)
    checks: tuple[str, ...] = field(init=False)
    required: frozenset[int] = field(init=False)
    needs_report: bool = field(init=False)

    def __post_init__(self) -> None:
        try:
            tree = ast.parse(self.source)
            rewriter = _rewritten(tree)
            program = ast.unparse(ast.fix_missing_locations(tree_of(rewriter.statements)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"the test {self.source[:200]!r} cannot be read as Python: {error}.") from error
        if not rewriter.checks:
            raise ValueError(f"the test {self.source[:200]!r} asserts nothing; any program would pass it.")
        for name, value in (
            ("program", program),
            ("checks", tuple(ast.unparse(check) for check in rewriter.checks)),
            ("required", frozenset(rewriter.required)),
            ("needs_report", not rewriter.outside_functions),
        ):
            object.__setattr__(self, name, value)


def tree_of(statements: Sequence[ast.stmt]) -> ast.Module:
    """A module of these statements."""
    return ast.Module(body=list(statements), type_ignores=[])


def _rewritten(tree: ast.Module) -> "_Rewriter":
    """With as many named right values kept from the program as can be: ``expected = [1, 2]``."""
    constants = _constants(tree)
    while True:
        rewriter = _Rewriter(tree, constants)
        left = {node.id for node in _loads(tree_of(rewriter.statements))}
        changed = {name for name in constants if name in left and not _is_immutable(constants[name])}
        if not changed:
            kept = [s for s in rewriter.statements if not (_target(s) in constants and _target(s) not in left)]
            rewriter.statements = kept
            return rewriter
        constants = {name: value for name, value in constants.items() if name not in changed}


class _Rewriter(ast.NodeTransformer):
    def __init__(self, tree: ast.Module, constants: dict[str, ast.expr]):
        self.constants = constants
        self.checks: list[ast.expr] = []
        self.required: list[int] = []
        self.outside_functions = False
        self.depth = 0  # of functions
        self.values: list[ast.expr] = []
        self.statements: list[ast.stmt] = []
        for statement in ast.parse(ast.unparse(tree)).body:  # a copy: it is changed in place, perhaps several times
            if isinstance(statement, ast.Assert):
                self.required.append(len(self.checks))
            changed = self.visit(statement)
            assert isinstance(changed, ast.stmt)
            self.statements.append(changed)

    def visit(self, node: ast.AST) -> ast.AST:
        inside = isinstance(node, _FUNCTIONS)
        self.depth += inside
        changed: ast.AST = super().visit(node)
        self.depth -= inside
        return changed

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        self.outside_functions |= self.depth == 0
        self.values = []
        self.checks.append(self._judged(node.test))
        arguments = [ast.Constant(len(self.checks) - 1), *self.values]
        return ast.Expr(ast.Call(ast.Name("_report", ast.Load()), arguments, []))

    def _judged(self, node: ast.expr) -> ast.expr:
        """What the judge evaluates in place of ``node``."""
        if _is_literal(node):
            return node
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.constants[node.id]
        if isinstance(node, ast.Compare) and _compares_values(node):
            return ast.Compare(self._judged(node.left), node.ops, [self._judged(part) for part in node.comparators])
        if isinstance(node, ast.Call) and _name(node.func) in _JUDGED and _is_plain(node):
            keywords = [ast.keyword(k.arg, self._judged(k.value)) for k in node.keywords]
            return ast.Call(node.func, [self._judged(part) for part in node.args], keywords)
        if isinstance(node, _OPEN) and not any(isinstance(part, ast.Starred) for part in ast.iter_child_nodes(node)):
            return self._parts(node)
        self.values.append(node)
        return ast.Subscript(ast.Name("_values", ast.Load()), ast.Constant(len(self.values) - 1), ast.Load())

    def _parts(self, node: ast.expr) -> ast.expr:
        parts: dict[str, Any] = {}
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                value = self._judged(value)
            elif isinstance(value, list):
                value = [self._judged(part) if isinstance(part, ast.expr) else part for part in value]
            parts[name] = value
        kind: Any = type(node)
        made: ast.expr = kind(**parts)
        return made


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that stand for one literal throughout."""
    stores = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
    arguments = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    found = {}
    for statement in tree.body:
        name = _target(statement)
        if name is not None and stores.count(name) == 1 and name not in arguments:
            assert isinstance(statement, ast.Assign)
            found[name] = statement.value
    return found


def _target(statement: ast.stmt) -> str | None:
    """The name in ``name = literal``."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and _is_literal(statement.value):
        target = statement.targets[0]
        return target.id if isinstance(target, ast.Name) else None
    return None


def _loads(tree: ast.AST) -> list[ast.Name]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


def _is_immutable(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.List | ast.Dict | ast.Set | ast.Call) for part in ast.walk(node))


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return _name(node.func) in _MAKERS and not node.keywords and all(_is_literal(part) for part in node.args)
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _is_plain(call: ast.Call) -> bool:
    parts = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(k.arg for k in call.keywords) and not any(isinstance(part, ast.Starred) for part in parts)


def _compares_values(node: ast.Compare) -> bool:
    """Not whether two things are the same object, which is lost when values leave their process."""
    parts = zip(node.ops, node.comparators, strict=True)
    return all(not isinstance(op, ast.Is | ast.IsNot) or isinstance(part, ast.Constant) for op, part in parts)


def _name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None
