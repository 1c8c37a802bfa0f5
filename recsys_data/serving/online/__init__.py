"""Feature views online: what is stored of them per entity, and their values at any moment."""
