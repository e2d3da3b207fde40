"""How attention is computed: attn_implementation, as Hugging Face names the choice.

"eager" makes every tensor that DynaProp prunes, and is the default. "sdpa" is PyTorch's
scaled_dot_product_attention, for policies that prune nothing between the two products; "triton" is
`model.attention_triton`, which prunes everywhere but has no dropout. Both are for layers of sa_sdp
heads, and equal "eager" up to rounding.
"""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor
from torch.nn import functional

from model.dynaprop import DynaProp
from model.operations import GemmRole
from model.space import TransformerDesign

IMPLEMENTATIONS = ("eager", "sdpa", "triton")
"""What attn_implementation may be."""

BETWEEN_PRODUCTS = (
    ("score", GemmRole.OUTPUT, "activations_off"),
    ("attention_softmax", GemmRole.OUTPUT, "activations_off"),
    ("score", GemmRole.GRAD_OUTPUT, "gradients_off"),
)
"""Places that sdpa does not have: operation, role, and the policy's field that leaves it alone."""


def check_implementation(requested: str | None, design: TransformerDesign) -> str:
    """Return the implementation that a model of a design gets, "eager" where none is asked for.

    Raises
    ------
    ValueError
        If there is none of this name, or it has not all of the design's heads.
    ImportError
        If triton is not installed.
    """
    if requested is None:
        return "eager"
    if requested not in IMPLEMENTATIONS:
        raise ValueError(
            f"attn_implementation must be {', '.join(IMPLEMENTATIONS[:-1])} or "
            f"{IMPLEMENTATIONS[-1]}, not {requested}"
        )
    others = {head for layer in design.layers for head in layer.heads} - {"sa_sdp"}
    if requested != "eager" and others:
        raise ValueError(
            f"attn_implementation {requested} is for sa_sdp heads, not {', '.join(sorted(others))};"
            " use eager"
        )
    if requested == "triton" and find_spec("triton") is None:
        raise ImportError(
            "attn_implementation triton needs triton and a GPU: pip install triton, or use eager"
        )
    return requested


def attention_of_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid_mask: Tensor,
    dropout: float,
    pruner: DynaProp,
    layer: int,
) -> Tensor:
    """Return the context of every head by PyTorch's scaled_dot_product_attention, pruned.

    Parameters
    ----------
    query, key, value : [batch, heads, sequence, head_size], as they are stored
    valid_mask : bool [batch, sequence], the real positions
    dropout : share of the probabilities that is dropped
    pruner, layer : whose thresholds

    Returns
    -------
    tensor of the operands' shape

    Raises
    ------
    ValueError
        If the policy prunes between the two products.
    """
    for operation, role, field in BETWEEN_PRODUCTS:
        entered = role is GemmRole.OUTPUT or query.requires_grad
        if entered and pruner.rule(layer, operation, role) != 0:
            raise ValueError(
                f"attn_implementation sdpa has no {operation} ({role}) to prune: put {operation} "
                f"into {field}, or use eager or triton"
            )
    context = functional.scaled_dot_product_attention(
        query, key, value, valid_mask[:, None, None, :], dropout
    )
    rows = valid_mask[:, None, :, None]
    context = pruner.product(context, layer, "context", rows)
    return pruner.store(context, layer, "context", rows)
