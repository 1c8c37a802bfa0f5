"""Other systems' published APIs on the address of serving, so that their clients work unmodified."""
