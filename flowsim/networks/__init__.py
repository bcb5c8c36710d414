"""Networks: state layout, initial values, vector field and tangent kernel K."""
