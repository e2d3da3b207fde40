"""What a policy says of each place, and what it refuses."""

import pytest

from model.policy import PruningPolicy


def test_policy_places_and_overrides():
    policy = PruningPolicy(
        activation_threshold=0.1,
        gradient_threshold=0.01,
        activations_off=("score", "value"),
        gradients_off=("score",),
        overrides=(
            {"threshold": 0.2, "layer": 1},
            {"threshold": 0.3, "layer": 1, "operation": "query"},
            {"threshold": 0.5, "operation": "key", "role": "GRAD_OUTPUT"},
        ),
    )
    assert policy.activation(0, "query") == 0.1
    assert policy.activation(1, "key") == 0.2
    assert policy.activation(1, "query") == 0.3
    assert policy.activation(0, "value") == policy.activation(0, "score") == 0
    assert policy.activation(None, "classifier") == 0
    assert policy.gradient(1, "query") == 0.01
    assert policy.gradient(0, "key") == 0.5
    assert policy.gradient(0, "score") == 0
    assert policy.gradient(0, "attention_norm") == 0
    assert PruningPolicy.load(policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"activation_treshold": 0.1},
            "unknown key 'activation_treshold' .* did you mean activation_threshold",
        ),
        ({"activation_threshold": float("nan")}, "activation_threshold"),
        ({"gradient_threshold": -1.0}, "gradient_threshold.*greater than or equal to 0, not -1.0"),
        ({"activations_off": ("querry",)}, "unknown place 'querry'; did you mean query"),
        ({"gradients_off": ("attention_softmax",)}, "unknown place 'attention_softmax'"),
        (
            {"overrides": ({"threshold": 0.1, "role": "WEIGHT"},)},
            "OUTPUT or GRAD_OUTPUT, not WEIGHT",
        ),
        ({"overrides": ({"threshold": 0.1, "operation": "pool"},)}, "did you mean pooler"),
    ],
)
def test_policy_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        PruningPolicy.load(fields)
