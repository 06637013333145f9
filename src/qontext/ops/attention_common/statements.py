"""Writing ONNX function bodies as text, one statement after the other."""

from collections.abc import Sequence


class Statements:
    """Statements of the ONNX text format over names.

    `add` appends one and returns the name of its result, made up unless `to` gives one.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, op_type: str, *inputs: str, to: str = "", **attributes: object) -> str:
        """Appends `to = op_type<attributes>(inputs)`; an attribute that is called `to` itself is written `to_`."""
        name = to or f"v{len(self.lines)}"
        inside = ", ".join(f"{key.rstrip('_')}={value}" for key, value in attributes.items())
        self.lines.append(f"{name} = {op_type}{f'<{inside}>' if inside else ''}({', '.join(inputs)})")
        return name

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Cuts an axis into pieces of these sizes."""
        names = [f"v{len(self.lines) + 1}_{i}" for i in range(len(sizes))]
        wanted = self.ints(sizes)
        self.lines.append(f"{', '.join(names)} = Split<axis={axis}>({x}, {wanted})")
        return names

    def ints(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self.add("Constant", value_ints=list(values))

    def whole(self, value: int) -> str:
        """A constant int64 scalar."""
        return self.add("Constant", value_int=value)

    def number(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.add("Constant", value_float=value)

    def reshape(self, x: str, shape: Sequence[int], to: str = "") -> str:
        """Reshape; 0 keeps an axis, -1 is what remains."""
        return self.add("Reshape", x, self.ints(shape), to=to)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Inserts axes of size 1."""
        return self.add("Unsqueeze", x, self.ints(axes))

    def text(self) -> str:
        """All statements, one a line."""
        return "\n".join(self.lines)
