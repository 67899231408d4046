"""Patterns of texts in the manifest. The API server checks them, too, by the CRD."""

NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
CLASS = r"^[A-Za-z_][A-Za-z0-9_]*$"
ENTRYPOINT = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
CPU = r"^[0-9]+(\.[0-9]+)?m?$"
EVERY = r"^(Auto|[1-9][0-9]*[smh])$"
QUEUE = r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
IN_WORDS = {
    NAME: "a name of small letters, digits and -, a letter first",
    QUANTITY: "an amount such as 500M or 16Gi",
    CLASS: "the name of a Python class",
    ENTRYPOINT: "a Python module and a name in it, such as own:MyTrainer",
    CPU: "a number of CPUs such as 2, 0.5 or 500m",
    EVERY: "Auto, or a whole number of seconds, minutes or hours such as 90s, 10m or 1h",
    QUEUE: "a name of letters, digits, -, _ and ., a letter or digit first and last",
}
"""What each pattern asks for, in words."""
