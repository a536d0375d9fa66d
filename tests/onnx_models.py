"""A tiny ONNX model, its protobuf written by hand: nothing needs to be installed to make it."""


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


def _value_info(name: str, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, side)) for side in shape)
    tensor = _field(1, 1) + _field(2, dimensions)  # element type 1: float
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _node(operation: str, given: str, made: str, **lists: list[int]) -> bytes:
    attributes = b"".join(
        _field(5, _field(1, name.encode()) + b"".join(_field(8, value) for value in values) + _field(20, 7))
        for name, values in lists.items()
    )
    return _field(1, given.encode()) + _field(2, made.encode()) + _field(4, operation.encode()) + attributes


def pooling_model(size: int = 32, cell: int = 8) -> bytes:
    """Returns a model whose vector is the picture's mean colours in cells of `cell` pixels: (1, 3, size, size) ->
    (1, 3 * (size / cell) ** 2)."""
    across = size // cell
    graph = (
        _field(1, _node("AveragePool", "image", "pooled", kernel_shape=[cell, cell], strides=[cell, cell]))
        + _field(1, _node("Flatten", "pooled", "vector"))
        + _field(2, b"pooling")
        + _field(11, _value_info("image", (1, 3, size, size)))
        + _field(12, _value_info("vector", (1, 3 * across * across)))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))  # IR version 8, operators version 13
