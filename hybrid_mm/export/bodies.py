"""Bodies of ``If``, ``Loop`` and ``Scan`` in an ONNX graph."""

from typing import Any


def captured(node: Any) -> set[str]:
    """Names that the bodies of a node take from around them.

    Args:
        node: An ``onnx.NodeProto``.
    """
    found: set[str] = set()
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                found |= {*inner.input, *captured(inner)}
            found |= {item.name for item in body.output}
    return found
