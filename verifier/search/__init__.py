"""Branch and bound: the driver, its frontier, and how it splits."""
