"""Orders that took each other's place: to everybody else they are one, under their label. Pure."""


class Chains:
    """Of all labels of ours."""
