"""The verbs that need no configuration of Hydra's, one a file; ``cli`` calls them."""
