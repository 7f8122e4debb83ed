"""Networks: modules hold weights, state is passed in."""
