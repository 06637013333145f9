"""The operators that a graph may use: the catalogue and the user's own, whose declarations are checked first."""

from collections.abc import Sequence

from ..errors import PluginError, all_problems
from .catalogue import BY_NAME
from .declaration import declaration_problems
from .declare import Op


def operators(plugins: Sequence[Op] = ()) -> dict[str, Op]:
    """All usable operators by name.

    Raises PluginError that lists everything wrong with the declarations of `plugins`, and clashes of names.
    """
    if isinstance(plugins, Op) or not isinstance(plugins, Sequence):
        raise PluginError(f"plugins is a {type(plugins).__name__}, expected a list of operators: plugins=[op]")
    table = dict(BY_NAME)
    problems = []
    for op in plugins:
        if not isinstance(op, Op):
            problems.append(f"{op!r} is a {type(op).__name__}, expected a qontext.plugins.Op")
            continue
        problems += [f"operator {op.name!r}: {problem}" for problem in declaration_problems(op)]
        if op.name in BY_NAME:
            problems.append(f"operator {op.name!r} exists in qontext; plugins need names of their own")
        elif op.name in table:
            problems.append(f"operator {op.name!r} is given twice; one engine holds one version of it")
        else:
            table[op.name] = op
    if problems:
        raise PluginError(all_problems("plugins", problems))
    return table
