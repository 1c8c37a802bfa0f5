"""The online store: a cache of the lake that answers read from; a protocol with a backend a file."""
