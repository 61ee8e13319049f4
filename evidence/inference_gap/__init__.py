"""log p(x) minus the bound, divided between the guide's family and its encoder."""
