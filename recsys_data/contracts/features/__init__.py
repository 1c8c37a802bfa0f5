"""Feature views: how they are declared, and whether they make sense."""
