"""What the tests of the chapters' exercises stand on: the cells of an exercise, and the statements that they need."""

import ast
import contextlib
import re
import symtable

import samil_lite

SOLUTION = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)
CHANGES = {
    "append",
    "update",
    "extend",
    "eval",
    "train",
    "requires_grad_",
    "load_state_dict",
    "copy_",
    "zeros_",
    "fill_",
}
MODULES = {"sl", "torch", "nn", "np", "pd", "plt", "math"}


def exercise_cells(cells):
    """For each exercise, by the last function outside of its solution: numbers of its cell and of its check cell."""
    found = {}
    for i, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            check = next(j for j in range(i + 1, len(cells)) if cells[j].cell_type == "code")
            given = re.sub(r"### BEGIN SOLUTION\n.*?### END SOLUTION", "", cell.source, flags=re.DOTALL)
            found[re.findall(r"^ *def (\w+)", given, re.M)[-1]] = (i, check)
    return found


def before(cells, exercise, check):
    """A new notebook in which the statements before an exercise have run that its answer and its check need."""
    sources = [cell.source for cell in cells[:exercise] if cell.cell_type == "code"]
    plain = [source for source in sources if "google.colab" not in source and not re.search(r"^ *[!%]", source, re.M)]
    statements = [statement for source in plain for statement in ast.parse(source).body]
    needed: set[str] = set()
    for statement in reversed([*ast.parse(cells[exercise].source).body, *ast.parse(cells[check].source).body]):
        needed = (needed - binds(statement)) | reads(statement)
    chosen = []
    for statement in reversed(statements):
        if (binds(statement) | alters(statement)) & needed:
            needed = (needed - binds(statement)) | reads(statement)
            chosen.append(ast.unparse(statement))
    space = {"sl": samil_lite}
    for source in reversed(chosen):
        # A drawing that changes something needed, by the look of it.
        with contextlib.suppress(NameError, StopIteration):
            exec(source, space)
    return space


def reads(statement):
    """The names of the notebook that a statement refers to, in the functions that it defines too."""
    found, tables = set(), [symtable.symtable(ast.unparse(statement), "cell", "exec")]
    top = tables[0]
    while tables:
        table = tables.pop()
        found |= {s.get_name() for s in table.get_symbols() if (s.is_referenced() if table is top else s.is_global())}
        tables += table.get_children()
    return found


def binds(statement):
    """The names that a simple statement gives a new value."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign):
        stored = [n for target in statement.targets for n in ast.walk(target)]
        return {n.id for n in stored if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def alters(statement):
    """The names whose objects a statement changes: by an item, an attribute, a method, in a loop or a with block."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return set()
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            found |= {n.id for n in ast.walk(node.func.value) if isinstance(n, ast.Name)}
        if isinstance(node, ast.AugAssign):
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found - MODULES
