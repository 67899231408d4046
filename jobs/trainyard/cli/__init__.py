"""What people type: one module a verb. Data goes to stdout, everything else to stderr."""
