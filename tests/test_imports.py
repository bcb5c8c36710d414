"""Arrows point one way: who may import whom, and what `import flowsim` may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a part may import of flowsim, besides itself. A module is its longest matching key.
MODEL = {
    "flowsim.deep_scaling",
    "flowsim.errors",
    "flowsim.scaling",
    "flowsim.expression",
    "flowsim.data",
    "flowsim.kernels",
}
RUNNING = MODEL | {
    "flowsim.config",
    "flowsim.networks",
    "flowsim.steppers",
    "flowsim.recording",
    "flowsim.result",
    "flowsim.backends",
    "flowsim.preparation",
    "flowsim.file_groups",
    "flowsim.execution",
}
RULES: dict[str, set[str]] = {
    "flowsim": {"*"},
    "flowsim.errors": set(),
    "flowsim.scaling": {"flowsim.errors"},
    "flowsim.deep_scaling": {"flowsim.errors"},
    "flowsim.deep_predictions": {"flowsim.deep_scaling"},
    "flowsim.expression": {"flowsim.errors"},
    "flowsim.data": {"flowsim.errors", "flowsim.expression"},
    "flowsim.kernels": {"flowsim.errors"},
    "flowsim.networks": {
        "flowsim.errors",
        "flowsim.scaling",
        "flowsim.deep_scaling",
        "flowsim.kernels",
    },
    "flowsim.steppers": {"flowsim.errors", "flowsim.kernels"},
    # Only the table of names, which compiles nothing.
    "flowsim.config": MODEL | {"flowsim.steppers"},
    "flowsim.recording": {"flowsim.errors", "flowsim"},
    "flowsim.analysis": {
        "flowsim.errors",
        "flowsim.scaling",
        "flowsim.deep_predictions",
        "flowsim.recording.reader",
    },
    "flowsim.result": MODEL | {"flowsim.config", "flowsim.networks", "flowsim.recording"},
    "flowsim.progress": {"flowsim.steppers"},
    "flowsim.arguments": MODEL | {"flowsim.config"},
    "flowsim.backends": MODEL | {"flowsim.config", "flowsim.networks"},
    "flowsim.preparation": MODEL
    | {
        "flowsim.backends",
        "flowsim.arguments",
        "flowsim.config",
        "flowsim.networks",
        "flowsim.steppers",
        "flowsim.recording",
        "flowsim.result",
    },
    "flowsim.continuing": {
        "flowsim.errors",
        "flowsim.config",
        "flowsim.steppers",
        "flowsim.recording",
    },
    "flowsim.file_groups": MODEL
    | {
        "flowsim",
        "flowsim.config",
        "flowsim.networks",
        "flowsim.steppers",
        "flowsim.recording",
        "flowsim.preparation",
    },
    "flowsim.execution": MODEL
    | {
        "flowsim.config",
        "flowsim.networks",
        "flowsim.steppers",
        "flowsim.recording",
        "flowsim.result",
        "flowsim.progress",
        "flowsim.preparation",
        "flowsim.continuing",
        "flowsim.file_groups",
    },
    "flowsim.ensemble_plans": RUNNING,
    "flowsim.ensembles": RUNNING | {"flowsim.ensemble_plans", "flowsim.execution"},
    "flowsim.many": RUNNING | {"flowsim.ensemble_plans", "flowsim.ensembles", "flowsim.execution"},
    "flowsim.api": MODEL
    | {
        "flowsim.arguments",
        "flowsim.backends",
        "flowsim.many",
        "flowsim.config",
        "flowsim.steppers",
        "flowsim.recording",
        "flowsim.result",
        "flowsim.preparation",
        "flowsim.continuing",
        "flowsim.execution",
    },
    "flowsim.reports": {"flowsim", "flowsim.errors", "flowsim.analysis", "flowsim.sweeps"},
    "flowsim.plotting": {"flowsim.analysis", "flowsim.recording", "flowsim.result"},
    "flowsim.limits": RUNNING | {"flowsim.analysis", "flowsim.api"},
    "flowsim.sweeps": MODEL
    | {
        "flowsim",
        "flowsim.analysis",
        "flowsim.config",
        "flowsim.steppers",
        "flowsim.recording",
        "flowsim.result",
        "flowsim.preparation",
        "flowsim.api",
        "flowsim.ensemble_plans",
        "flowsim.ensembles",
        "flowsim.many",
    },
    "flowsim.cli": {"*"},
}

HEAVY = ("numba", "matplotlib", "pydantic", "h5py", "scipy", "rich", "click")


def modules() -> dict[str, Path]:
    """Return every module of flowsim by its name."""
    found = {}
    for folder, package in (("flowsim", "flowsim"), ("kernels", "flowsim.kernels")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Return what a module imports of flowsim, inside functions and for type checkers too.

    ``from package import name`` counts as ``package.name``: it may be a module.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *filter(None, [source])])
            found |= {f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and node.value in ALL:
            # A table of modules that are imported by name.
            found.add(node.value)
    return {item for item in found if item == "flowsim" or item.startswith("flowsim.")}


ALL = modules()


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(name: str) -> str:
    """Return the key of RULES that a module, or a name in one, belongs to."""
    return max((key for key in RULES if within(name, key)), key=len)


def allowed(importer: str, imported: str) -> bool:
    """Tell whether an arrow is in the table."""
    part = part_of(importer)
    rule = RULES[part]
    if "*" in rule or (part != "flowsim" and within(imported, part)):
        return True
    if part_of(imported) == "flowsim":
        return "flowsim" in rule
    return any(within(imported, target) for target in rule if target != "flowsim")


def test_every_part_is_in_the_table():
    parts = {".".join(name.split(".")[:2]) for name in ALL}
    assert parts == set(RULES), "a new part needs its line in RULES, an old one has gone"


@pytest.mark.parametrize("name", sorted(ALL))
def test_imports_follow_the_arrows(name):
    against = sorted(item for item in imports(name, ALL[name]) if not allowed(name, item))
    assert not against, f"{name} must not import {', '.join(against)}"


def test_the_table_has_no_cycle():
    remaining = {part: rule - {"*", "flowsim"} for part, rule in RULES.items() if part != "flowsim"}
    remaining = {part: {part_of(item) for item in rule} for part, rule in remaining.items()}
    while remaining:
        free = [part for part, rule in remaining.items() if not rule & set(remaining)]
        assert free, f"a cycle among {sorted(remaining)}"
        for part in free:
            del remaining[part]


def test_config_takes_only_names_from_the_steppers():
    taken = {item for item in imports("flowsim.config", ALL["flowsim.config"])}
    taken = {item for item in taken if within(item, "flowsim.steppers")}
    assert taken <= {"flowsim.steppers.METHOD_NAMES"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_flowsim_is_light():
    assert not loaded_by("import flowsim") & {*HEAVY, "numpy"}


def test_checking_a_configuration_compiles_nothing():
    assert not loaded_by("import flowsim.config") & {"numba", "matplotlib", "scipy", "h5py"}


def test_the_command_line_starts_with_click_alone():
    assert not loaded_by("import flowsim.cli") & {*(set(HEAVY) - {"click"}), "numpy"}


def test_every_public_name_can_be_had():
    import flowsim

    for name in flowsim.__all__:
        assert getattr(flowsim, name) is not None, name
    assert set(flowsim.__all__) <= set(dir(flowsim))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = flowsim.no_such_name
