"""Tiny ONNX models, their protobuf written by hand: nothing needs to be installed to make it."""


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    return _number(number << 3 | 2) + _number(len(value)) + value


FLOAT, UINT8, INT64 = 1, 2, 7


def _value_info(name: str, shape: tuple[int | str, ...], kind: int = FLOAT) -> bytes:
    dimensions = b"".join(
        _field(1, _field(2, side.encode()) if isinstance(side, str) else _field(1, side)) for side in shape
    )
    tensor = _field(1, kind) + _field(2, dimensions)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _node(operation: str, given: list[str], made: str, *, to: int = 0, **lists: list[int]) -> bytes:
    attributes = b"".join(
        _field(5, _field(1, name.encode()) + b"".join(_field(8, value) for value in values) + _field(20, 7))
        for name, values in lists.items()
    )
    if to:
        attributes += _field(5, _field(1, b"to") + _field(3, to) + _field(20, 2))
    names = b"".join(_field(1, name.encode()) for name in given)
    return names + _field(2, made.encode()) + _field(4, operation.encode()) + attributes


def _weights(name: str, rows: int, columns: int) -> bytes:
    return (
        _field(1, rows) + _field(1, columns) + _field(2, FLOAT) + _field(8, name.encode())
        + _field(9, b"\0\0\x80\x3f" * (rows * columns))
    )  # fmt: skip


def pooling_model(
    size: int = 32,
    cell: int = 8,
    *,
    weight_bytes: int = 0,
    kind: int = FLOAT,
    nhwc: bool = False,
    dynamic: bool = False,
    inputs: int = 1,
    operator: str = "AveragePool",
) -> bytes:
    """Returns a model whose vector is the picture's mean colours in cells of `cell` pixels: (1, 3, size, size) ->
    (1, 3 * (size / cell) ** 2). With weights it has as many bytes of them, and its vector one number. `kind`, `nhwc`:
    what its input is of, and how it lies; `dynamic`: batch and sides have names instead of figures; further `inputs`
    are asked for and not used."""
    numbers = 3 * (size // cell) ** 2
    shape: tuple[int | str, ...] = ("batch", 3, "high", "wide") if dynamic else (1, 3, size, size)
    nodes, at, initializers = [], "image", b""
    if kind != FLOAT:
        nodes.append(_node("Cast", [at], at := "cast", to=FLOAT))
    if nhwc:
        shape = (shape[0], shape[2], shape[3], shape[1])
        nodes.append(_node("Transpose", [at], at := "turned", perm=[0, 3, 1, 2]))
    nodes.append(_node(operator, [at], "pooled", kernel_shape=[cell, cell], strides=[cell, cell]))
    nodes.append(_node("Flatten", ["pooled"], at := "vector"))
    if weight_bytes:
        columns = weight_bytes // (4 * (numbers + 1))
        initializers = _field(5, _weights("first", numbers, columns)) + _field(5, _weights("second", columns, 1))
        nodes += [_node("MatMul", [at, "first"], "hidden"), _node("MatMul", ["hidden", "second"], at := "number")]
    graph = (
        b"".join(_field(1, node) for node in nodes)
        + _field(2, b"pooling")
        + initializers
        + _field(11, _value_info("image", shape, kind))
        + b"".join(_field(11, _value_info(f"other{number}", (1,))) for number in range(1, inputs))
        + _field(12, _value_info(at, (shape[0], 1 if weight_bytes else "numbers" if dynamic else numbers)))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))  # IR version 8, operators version 13


def hollow_model(size_bytes: int) -> tuple[bytes, int]:
    """Returns how a file begins that is built like a model of so many bytes, and its whole size: the rest is a hole."""
    head = _field(1, 8) + _number(7 << 3 | 2) + _number(size_bytes)
    return head, len(head) + size_bytes
